//! Round robin is exact: by each hook, over all of them at once, and only a new flow takes a turn.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_lab::Host;
use weir_lab::peer::Report;
use weir_lab::peer::connect::ConnectOptions;
use weir_node::counters::Counters;
use weir_node::probe::Probe;
use weir_node::services::{WEB, family};
use weir_node::{By, World, can_run, figures};

const CONNECTIONS: u64 = 3000;
const CLIENTS: u64 = 30;

/// Opens connections, and each of the three backends must get the same number.
fn assert_even(what: &str, by: By, host: &Host, options: &ConnectOptions) -> Result<()> {
    let report = by.connect(host, options)?;
    figures(
        &format!("{what}, {by:?} hook, {}", family(options.target)),
        &report,
    );
    ensure!(report.is_clean(), "{what}: {report:?}");
    ensure!(
        report.counts() == [options.count / 3; 3],
        "{what}: {:?}",
        report.backends
    );
    Ok(())
}

#[test]
fn tcp_from_a_pod_and_from_a_host_process() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("rrtcp")?;
    for target in WEB.tcp() {
        let options = ConnectOptions::new(target, CONNECTIONS, CLIENTS);
        assert_even("pod to ClusterIP", By::Socket, &world.client, &options)?;
        assert_even("pod to ClusterIP", By::Packet, &world.client, &options)?;
        assert_even("host process to ClusterIP", By::Socket, &world.n1, &options)?;
    }
    Ok(())
}

#[test]
fn tcp_through_a_node_port() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("rrnp")?;
    for target in world.at_n1(WEB.node_tcp()) {
        let options = ConnectOptions::new(target, CONNECTIONS, CLIENTS);
        assert_even("outside to NodePort", By::Packet, &world.outside, &options)?;
        assert_even("pod to NodePort", By::Socket, &world.client, &options)?;
        assert_even("pod to NodePort", By::Packet, &world.client, &options)?;
        assert_even("host process to NodePort", By::Socket, &world.n1, &options)?;
    }
    Ok(())
}

/// Adds up by backend.
fn sum(reports: &[Report]) -> Vec<u64> {
    ["web-1", "web-2", "web-3"]
        .iter()
        .map(|name| reports.iter().map(|report| report.backend(name)).sum())
        .collect()
}

#[test]
fn over_both_hooks_at_once_and_over_a_restart() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let mut world = World::new("rrboth")?;
    let [cluster_ip, cluster_ip_6] = WEB.tcp();
    let [node_port, node_port_6] = world.at_n1(WEB.node_tcp());
    for (target, node_port) in [(cluster_ip, node_port), (cluster_ip_6, node_port_6)] {
        // 750 each at 400 a second: the agent is killed and started while they run.
        let paced = |target: SocketAddr| ConnectOptions {
            rate: 400,
            ..ConnectOptions::new(target, CONNECTIONS / 4, CLIENTS)
        };
        let loads = [
            By::Socket.start(&world.client, &paced(target))?,
            By::Packet.start(&world.sandbox, &paced(target))?,
            By::Socket.start(&world.n1, &paced(target))?,
            By::Packet.start(&world.outside, &paced(node_port))?,
        ];
        std::thread::sleep(Duration::from_millis(400));
        world.weir()?.restart()?;
        let mut reports = Vec::new();
        for load in loads {
            let report = load.wait()?;
            figures("one of four at once, with a restart", &report);
            ensure!(report.is_clean(), "{report:?}");
            reports.push(report);
        }
        let sum = sum(&reports);
        println!("sum of all four, {}: {sum:?}", family(target));
        ensure!(sum == [CONNECTIONS / 3; 3], "{sum:?}");
        let chosen = world.chosen(WEB, target)?;
        println!("weir services says: {chosen:?}");
        ensure!(
            chosen.len() == 3 && chosen.iter().all(|(_, times)| *times == CONNECTIONS / 3),
            "{chosen:?}"
        );
    }
    Ok(())
}

#[test]
fn udp_by_each_way_of_sending() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("rrudp")?;
    for target in WEB.udp() {
        let datagrams = ConnectOptions {
            udp: true,
            ..ConnectOptions::new(target, CONNECTIONS, CLIENTS)
        };
        assert_even("pod, sendmsg", By::Socket, &world.client, &datagrams)?;
        assert_even("host process, sendmsg", By::Socket, &world.n1, &datagrams)?;
        let connected = ConnectOptions {
            connected: true,
            ..datagrams
        };
        assert_even("host process, connected", By::Socket, &world.n1, &connected)?;
        // On the packet path a source port that comes again within 3 minutes is the same flow: so the sockets are all
        // open at a time, and the second crowd comes from another pod. They say more than one word.

        let held = ConnectOptions {
            count: 600,
            hold: Duration::from_millis(1500),
            ..connected
        };
        assert_even("pod, connected (packet path)", By::Socket, &world.client, &held)?;
        let unconnected = ConnectOptions {
            connected: false,
            ..held
        };
        assert_even("pod, sendto", By::Packet, &world.sandbox, &unconnected)?;
    }
    Ok(())
}

#[test]
fn a_retransmitted_syn_takes_no_turn() -> Result<()> {
    if !can_run(&["nft"]) {
        return Ok(());
    }
    let world = World::new("rrsyn")?;
    for pod in &world.web {
        // The first answer to each client port is lost, so the client sends its SYN again.
        pod.sh("nft -f - <<'END'
            table inet lossy {
              set heard { type inet_service; flags dynamic; timeout 60s; }
              chain out {
                type filter hook output priority 0;
                tcp flags & (syn|ack) == (syn|ack) tcp dport != @heard add @heard { tcp dport } drop
              }
            }
END")?;
    }
    let [v4, _] = WEB.tcp();
    let before = Counters::of(&world.client)?;
    let options = ConnectOptions::new(v4, 300, 300);
    let report = By::Packet.connect(&world.client, &options)?;
    let counters = Counters::of(&world.client)?.since(before);
    figures("half of the first answers lost", &report);
    let chosen = world.chosen(WEB, v4)?;
    println!(
        "SYNs sent again: {}; weir services says {chosen:?}",
        counters.syn_retransmits
    );
    ensure!(
        counters.syn_retransmits > 50,
        "nothing was lost, so nothing was tested"
    );
    ensure!(report.is_clean() && report.counts() == [100; 3], "{report:?}");
    ensure!(chosen.iter().all(|(_, times)| *times == 100), "{chosen:?}");
    Ok(())
}

#[test]
fn connect_called_twice_takes_one_turn() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("rrtwice")?;
    let [v4, v6] = WEB.tcp();
    for (target, host, by) in [
        (v4, world.client.host(), By::Socket),
        (v6, world.client.host(), By::Socket),
        (v4, world.client.host(), By::Packet),
        (v4, world.n1.host(), By::Socket),
    ] {
        let before = world.chosen(WEB, target)?;
        let finding = by.probe(host, &Probe::ConnectTwice { target, count: 99 })?;
        let answers = ["web-1", "web-2", "web-3"].map(|name| finding.answers_of(name));
        let after = world.chosen(WEB, target)?;
        let turns: Vec<_> = after.iter().zip(&before).map(|(a, b)| a.1 - b.1).collect();
        println!(
            "connect() twice, {by:?} hook, {}: answers {answers:?}, turns {turns:?}",
            family(target)
        );
        ensure!(finding.is_clean(99), "{finding:?}");
        ensure!(answers == [33; 3] && turns == [33; 3], "{answers:?} {turns:?}");
    }
    Ok(())
}
