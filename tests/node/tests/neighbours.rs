//! Others on the node: strict filters, a firewall that drops what conntrack calls invalid, a bridge, programs of
//! somebody else.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_lab::manifest::{Port, Service};
use weir_lab::peer::connect::ConnectOptions;
use weir_lab::{Host, Manifests, NodeOptions, PodNetwork, Process, Rights, Weir, clock, weir_binary};
use weir_node::services::{REMOTE, SOLO, TARGET, WEB, endpoints};
use weir_node::{By, World, WorldOptions, can_run, figures};

/// Round robin, node ports and hairpins still work.
fn assert_all_paths(world: &World) -> Result<()> {
    let even = |what: &str, by: By, host: &Host, target: SocketAddr, udp: bool| -> Result<()> {
        let options = ConnectOptions {
            udp,
            ..ConnectOptions::new(target, 300, 20)
        };
        let report = by.connect(host, &options)?;
        figures(&format!("{what} to {target}, UDP {udp}, {by:?} hook"), &report);
        ensure!(report.is_clean(), "{what}: {report:?}");
        // A UDP port of an earlier client may come again on the packet path.
        ensure!(
            udp || report.counts() == [100; 3],
            "{what}: {:?}",
            report.backends
        );
        Ok(())
    };
    for (tcp, udp) in WEB.tcp().into_iter().zip(WEB.udp()) {
        for (target, udp) in [(tcp, false), (udp, true)] {
            even("pod", By::Socket, &world.client, target, udp)?;
            even("pod", By::Packet, &world.sandbox, target, udp)?;
            even("host process", By::Socket, &world.n1, target, udp)?;
        }
    }
    for (tcp, udp) in world
        .at_n1(WEB.node_tcp())
        .into_iter()
        .zip(world.at_n1(WEB.node_udp()))
    {
        for (target, udp) in [(tcp, false), (udp, true)] {
            even("outside", By::Packet, &world.outside, target, udp)?;
            even("pod", By::Packet, &world.sandbox, target, udp)?;
        }
    }
    let [web_1, ..] = &world.web;
    for target in SOLO.tcp() {
        let report = By::Packet.connect(web_1, &ConnectOptions::new(target, 30, 5))?;
        ensure!(
            report.is_clean() && report.backend("web-1") == 30,
            "hairpin: {report:?}"
        );
    }
    for target in world.at_n1(REMOTE.node_tcp()) {
        let report = By::Packet.connect(&world.outside, &ConnectOptions::new(target, 30, 5))?;
        ensure!(
            report.is_clean() && report.backend("web-3") == 30,
            "SNAT: {report:?}"
        );
    }
    Ok(())
}

#[test]
fn p7_strict_reverse_path_and_no_invalid_packets() -> Result<()> {
    if !can_run(&["nft"]) {
        return Ok(());
    }
    let world = World::new("strict")?;
    for node in [&world.n1, &world.n2] {
        let filters = node.sh("sysctl -n -a -r 'ipv4\\.conf\\.(eth0|veth.*)\\.rp_filter'")?;
        println!(
            "{}: rp_filter {}",
            node.name(),
            filters.split_whitespace().collect::<String>()
        );
        ensure!(
            !filters.is_empty() && filters.split_whitespace().all(|value| value == "1"),
            "{filters}"
        );
        node.sh("nft -f - <<'END'
            table inet firewall {
              chain forward {
                type filter hook forward priority 0;
                ct state invalid counter drop
                ct state established,related counter accept
                counter accept
              }
              chain input { type filter hook input priority 0; ct state invalid counter drop; }
            }
END")?;
    }
    assert_all_paths(&world)?;
    for node in [&world.n1, &world.n2] {
        let rules = node.sh("nft list table inet firewall | grep counter")?;
        println!("{}:\n{}", node.name(), rules.trim_end());
    }
    Ok(())
}

#[test]
fn pods_on_a_bridge() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    // Answers from a pod to its neighbour never meet the node's IP stack.
    let node = NodeOptions {
        pods: PodNetwork::Bridge,
        ..NodeOptions::default()
    };
    let world = World::with(
        "bridge",
        WorldOptions {
            node,
            ..WorldOptions::default()
        },
    )?;
    assert_all_paths(&world)
}

/// An independent set of programs on the same cgroup and interfaces, with a Service of its own to tell that it runs:
/// a second weir with pins elsewhere, which is as foreign to the first as anybody's. An agent that may look would not
/// start beside it; one with the rights of a pod cannot tell whose these programs are.
struct Foreigner {
    agent: Process,
    frontends: [SocketAddr; 2],
}

impl Foreigner {
    fn start(world: &World) -> Result<Self> {
        // Only its bpffs is used.
        let other = world.lab.node("n3", NodeOptions::default())?;
        let manifests = Manifests::new(world.lab.dir().join("foreign"))?;
        let ips: [IpAddr; 2] = ["10.97.0.20".parse()?, "fd00:10:97::20".parse()?];
        let service = Service::new("foreign", &ips, &[Port::tcp("http", 80, TARGET)]);
        let [web_1, ..] = &world.web;
        let mut documents = vec![service.to_yaml()];
        documents.extend(service.slices(&endpoints(&[web_1])));
        manifests.write("foreign.yaml", &documents)?;
        let mut command = Command::new(weir_binary()?);
        command
            .args(["agent", "--node-name", world.n1.name(), "--bpffs"])
            .arg(other.bpffs());
        command
            .arg("--cgroup")
            .arg(world.n1.cgroup())
            .arg("--manifests")
            .arg(manifests.dir());
        let agent = world.n1.spawn(command)?;
        let ready = clock::wait_until(Duration::from_secs(20), || agent.log().contains("ready services"));
        ensure!(ready, "the other agent is not ready: {}", agent.log());
        Ok(Self {
            agent,
            frontends: ips.map(|ip| SocketAddr::new(ip, 80)),
        })
    }

    fn assert_runs(&mut self, world: &World, when: &str) -> Result<()> {
        for target in self.frontends {
            for (by, host) in [(By::Socket, &world.client), (By::Packet, &world.sandbox)] {
                let report = by.connect(host, &ConnectOptions::new(target, 20, 5))?;
                ensure!(
                    report.is_clean() && report.backend("web-1") == 20,
                    "{when}, {by:?}: {report:?}"
                );
            }
        }
        ensure!(self.agent.is_running(), "{when}: its agent has ended");
        println!("{when}: the other programs run, on sockets and on packets");
        Ok(())
    }
}

#[test]
fn programs_of_others_stay() -> Result<()> {
    if !can_run(&["tc", "bpftool", "setpriv"]) {
        return Ok(());
    }
    let mut world = World::with(
        "foreign",
        WorldOptions {
            no_agents: true,
            rights: Rights::Pod,
            ..WorldOptions::default()
        },
    )?;
    let node = world.n1.clone();
    let veth = world.sandbox.host_interface().to_owned();
    node.sh(&format!(
        "tc qdisc add dev {veth} clsact && \
         tc filter add dev {veth} ingress prio 7 handle 7 bpf bytecode '1,6 0 0 4294967295,' flowid 1:1 && \
         tc filter add dev {veth} egress prio 7 handle 7 bpf bytecode '1,6 0 0 4294967295,' flowid 1:1"
    ))?;
    let filters = || -> Result<Vec<String>> {
        ["ingress", "egress"]
            .into_iter()
            .map(|side| node.sh(&format!("tc filter show dev {veth} {side}")))
            .collect()
    };
    let before = filters()?;
    ensure!(before.iter().all(|side| side.contains("bytecode")), "{before:?}");
    let mut foreigner = Foreigner::start(&world)?;
    foreigner.assert_runs(&world, "alone")?;
    world.start_agents()?;
    foreigner.assert_runs(&world, "beside weir")?;
    assert_all_paths(&world)?;
    world.weir()?.restart()?;
    foreigner.assert_runs(&world, "after a restart of weir")?;
    ensure!(
        filters()? == before,
        "filters of tc have changed: {:?}",
        filters()?
    );
    world.weir()?.term()?;
    println!(
        "{} lines of cleanup",
        world.n1.weir(&["cleanup"])?.lines().count()
    );
    foreigner.assert_runs(&world, "after a cleanup of weir")?;
    ensure!(
        filters()? == before,
        "filters of tc have changed: {:?}",
        filters()?
    );
    let cgroup = world
        .n1
        .sh(&format!("bpftool -j cgroup show {}", world.n1.cgroup().display()))?;
    let left: serde_json::Value = serde_json::from_str(&cgroup)?;
    let left = left.as_array().context("not a list")?.len();
    ensure!(left == 8, "{left} socket programs are left, not the other's 8");
    Ok(())
}

#[test]
fn a_second_weir_with_other_pins_is_turned_away() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let mut world = World::new("second")?;
    let other = world.lab.node("n3", NodeOptions::default())?;
    let mut command = Command::new(weir_binary()?);
    command.args(["agent", "--node-name", world.n1.name(), "--bpffs"]);
    command.arg(other.bpffs()).arg("--cgroup").arg(world.n1.cgroup());
    command.arg("--manifests").arg(world.manifests.dir());
    let mut second = world.n1.spawn(command)?;
    let ended = clock::wait_until(Duration::from_secs(20), || !second.is_running());
    let said = second.log();
    let first = world.n1.bpffs().display().to_string();
    ensure!(
        ended && said.contains("another weir") && said.contains(&format!("--bpffs {first}")),
        "ended: {ended}; {said}"
    );
    drop(second);
    println!("turned away: {}", said.trim());
    // The first notices nothing, and starts again; so do those of other namespaces, beside it all the time.
    assert_all_paths(&world)?;
    world.weir()?.restart()?;
    ensure!(
        !world.weir()?.log().contains("another weir"),
        "{}",
        world.weir()?.log()
    );
    // What is left of one that ended is cleaned up, and the next may come.
    world.weir()?.term()?;
    world.n1.weir(&["cleanup"])?;
    Weir::start(&world.n1, world.manifests.dir(), &[])?;
    Ok(())
}
