//! Nodes that are not set up as usual.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_lab::clock;
use weir_lab::peer::connect::ConnectOptions;
use weir_lab::weir_binary;
use weir_node::services::{REMOTE, WEB};
use weir_node::{By, World, WorldOptions, can_run, figures};

fn without_agents(prefix: &str) -> Result<World> {
    World::with(
        prefix,
        WorldOptions {
            no_agents: true,
            ..WorldOptions::default()
        },
    )
}

/// The source ports of the connections from outside to `REMOTE`, as node 1 translates them.
fn source_ports(world: &World) -> Result<Vec<u64>> {
    for target in world.at_n1(REMOTE.node_tcp()) {
        let report = By::Packet.connect(&world.outside, &ConnectOptions::new(target, 50, 5))?;
        figures(&format!("outside to {target}"), &report);
        ensure!(report.is_clean() && report.backend("web-3") == 50, "{report:?}");
    }
    let flows: Value = serde_json::from_str(&world.n1.weir(&["flows", "--output", "json", "--limit", "0"])?)?;
    let flows = flows
        .get("items")
        .unwrap_or(&flows)
        .as_array()
        .context("no list")?;
    let ports = flows.iter().filter_map(|flow| flow.get("sourcePort")?.as_u64());
    Ok(ports.collect())
}

#[test]
fn p8_source_ports_keep_out_of_the_way_of_the_node() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let mut world = without_agents("ports")?;
    world
        .n1
        .sysctls(&[("net.ipv4.ip_local_port_range", "15000 65535")])?;
    world.start_agents()?;
    let ports = source_ports(&world)?;
    println!(
        "{} connections, from {:?} to {:?}",
        ports.len(),
        ports.iter().min(),
        ports.iter().max()
    );
    ensure!(
        ports.len() >= 100 && ports.iter().all(|port| (1024..15000).contains(port)),
        "{ports:?}"
    );
    ensure!(world.n1.weir(&["status"])?.contains("source ports 1024-14999"));

    // Nothing is left, and the warning says what to set.
    world
        .n1
        .sysctls(&[("net.ipv4.ip_local_port_range", "1024 65535")])?;
    let weir = world.weir()?;
    let before = weir.log().len();
    weir.restart()?;
    let set = "set net.ipv4.ip_local_reserved_ports=10000-29999";
    ensure!(weir.log()[before..].contains(set), "{}", weir.log());
    world
        .n1
        .sysctls(&[("net.ipv4.ip_local_reserved_ports", "10000-29999")])?;
    let weir = world.weir()?;
    let before = weir.log().len();
    weir.restart()?;
    ensure!(!weir.log()[before..].contains("net.ipv4"), "{}", weir.log());
    let ports = source_ports(&world)?;
    ensure!(
        ports.iter().any(|port| (10000..30000).contains(port)),
        "{ports:?}"
    );
    Ok(())
}

/// In a mount namespace of its own, where no cgroup v2 hierarchy is mounted.
fn without_cgroups(world: &World) -> Result<Command> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("umount --all --types cgroup2 && exec \"$0\" \"$@\"");
    command.arg(weir_binary()?);
    add_arguments(&mut command, world);
    Ok(command)
}

/// Of an agent on node 1.
fn add_arguments(command: &mut Command, world: &World) {
    command.args(["agent", "--node-name", world.n1.name()]);
    command.arg("--bpffs").arg(world.n1.bpffs());
    command.arg("--manifests").arg(world.manifests.dir());
}

#[test]
fn without_cgroup_v2_pods_are_served_packet_by_packet() -> Result<()> {
    if !can_run(&["unshare", "umount"]) {
        return Ok(());
    }
    let world = without_agents("nocgroup")?;
    let agent = world.n1.spawn(without_cgroups(&world)?)?;
    let ready = clock::wait_until(Duration::from_secs(20), || agent.log().contains("ready services"));
    ensure!(ready, "not ready: {}", agent.log());
    let log = agent.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    println!("{}", warnings.join("\n"));
    ensure!(
        warnings.len() == 1 && log.contains("no cgroup v2 hierarchy is mounted"),
        "{log}"
    );
    let status = world.n1.weir(&["status"])?;
    ensure!(status.contains("Socket hooks: off"), "{status}");

    // Whether a pod's process is in the node's cgroup or in none makes no difference now.
    for by in By::BOTH {
        let tcp = WEB.tcp().map(|target| (target, false, false));
        let udp = WEB.udp().map(|target| (target, true, false));
        let connected_udp = WEB.udp().map(|target| (target, true, true));
        for (target, udp, connected) in tcp.into_iter().chain(udp).chain(connected_udp) {
            let options = ConnectOptions {
                udp,
                connected,
                ..ConnectOptions::new(target, 300, 10)
            };
            let report = by.connect(world.client.host(), &options)?;
            figures(
                &format!("{by:?} to {target}, UDP {udp}, connected {connected}"),
                &report,
            );
            ensure!(report.is_clean() && report.backends.len() == 3, "{report:?}");
        }
    }
    Ok(())
}

/// Clients outside reach both nodes' backends by the node ports of node 1.
fn assert_uplink_serves(world: &World, when: &str) -> Result<()> {
    for target in world.at_n1(WEB.node_tcp()) {
        let report = By::Packet.connect(&world.outside, &ConnectOptions::new(target, 90, 5))?;
        figures(&format!("{when}, outside to {target}"), &report);
        ensure!(
            report.is_clean() && report.backends.len() == 3,
            "{when}: {report:?}"
        );
    }
    Ok(())
}

/// Its uplink shows by nothing but the Node's `InternalIP`, and looks like a pod's interface to who has not read that.
#[test]
fn an_uplink_without_a_default_route_stays_one_while_the_source_is_away() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let mut world = without_agents("noroute")?;
    world
        .n1
        .sh("ip -4 route del default && ip -6 route del default")?;
    world.start_agents()?;
    assert_uplink_serves(&world, "at first")?;
    let all = world.lab.dir().join("all");
    fs::rename(world.manifests.dir(), &all)?;
    world.weir()?.kill9()?;

    let mut command = Command::new(weir_binary()?);
    add_arguments(&mut command, &world);
    command.arg("--cgroup").arg(world.n1.cgroup());
    let agent = world.n1.spawn(command)?;
    let served = |name: &str| {
        let log = agent.log();
        let line = log
            .lines()
            .find(|line| line.contains("interface served") && line.contains(name));
        line.map(str::to_owned)
    };
    let looked = clock::wait_until(Duration::from_secs(20), || served("eth0").is_some());
    ensure!(looked, "eth0 is not served: {}", agent.log());
    ensure!(
        served("eth0").is_some_and(|line| line.contains("Uplink")),
        "{}",
        agent.log()
    );
    assert_uplink_serves(&world, "without its source")?;
    ensure!(!agent.log().contains("ready services"), "{}", agent.log());

    fs::rename(&all, world.manifests.dir())?;
    let ready = clock::wait_until(Duration::from_secs(10), || agent.log().contains("ready services"));
    ensure!(ready, "not ready after the folder is back: {}", agent.log());
    ensure!(!agent.log().contains("interface released"), "{}", agent.log());
    assert_uplink_serves(&world, "with its source")
}
