//! Nodes that are not set up as usual.

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
fn source_ports_keep_out_of_the_way_of_the_node() -> Result<()> {
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
    command
        .arg(weir_binary()?)
        .args(["agent", "--node-name", world.n1.name()]);
    command.arg("--bpffs").arg(world.n1.bpffs());
    command.arg("--manifests").arg(world.manifests.dir());
    Ok(command)
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
