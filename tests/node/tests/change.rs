//! Endpoints come and go under load, and clients do not notice.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_lab::clock;
use weir_lab::peer::connect::ConnectOptions;
use weir_node::probe::Probe;
use weir_node::services::{SOLO, TARGET, WEB, endpoints, family};
use weir_node::{By, Load, World, can_run, figures};

fn new(target: SocketAddr, rate: u64) -> ConnectOptions {
    ConnectOptions {
        rate,
        ..ConnectOptions::new(target, 0, 20)
    }
}

fn long(target: SocketAddr, count: u64) -> ConnectOptions {
    ConnectOptions {
        hold: Duration::from_secs(600),
        ..ConnectOptions::new(target, count, count)
    }
}

#[test]
fn a_backend_scaled_away_and_back_twenty_times() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let mut world = World::new("scale")?;
    let [web_1, web_2, web_3] = world.web.clone();
    let [v4, v6] = WEB.tcp();
    let [node_port, _] = world.at_n1(WEB.node_tcp());
    let loads = [
        By::Socket.start(&world.client, &new(v4, 70))?,
        By::Packet.start(&world.sandbox, &new(v6, 70))?,
        By::Packet.start(&world.outside, &new(node_port, 60))?,
    ];
    let (mut slowest, mut sum) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..20 {
        for pods in [&[&web_1, &web_2][..], &[&web_1, &web_2, &web_3]] {
            let comes_back = pods.len() == 3;
            let [_, _, server] = &mut world.servers;
            if comes_back {
                *server = Some(web_3.serve(TARGET, TARGET)?);
            }
            WEB.write(&world.manifests, pods)?;
            let took = world.settled(WEB, pods)?;
            (slowest, sum) = (slowest.max(took), sum + took);
            thread::sleep(Duration::from_millis(100));
            if !comes_back {
                // It takes no new connections any more, so it may die.
                let [_, _, server] = &mut world.servers;
                drop(server.take());
            }
        }
    }
    println!("40 changes, {:?} each on average, {slowest:?} at most", sum / 40);
    for load in loads {
        let report = load.stop()?;
        figures("200 new connections a second", &report);
        ensure!(report.is_clean(), "{report:?}");
        ensure!(report.backends.len() == 3, "{report:?}");
    }
    Ok(())
}

#[test]
fn p11_long_connections_stay_with_a_backend_that_is_leaving() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("leaving")?;
    let [web_1, web_2, web_3] = &world.web;
    let [v4, v6] = WEB.tcp();
    let [node_port, _] = world.at_n1(WEB.node_tcp());
    let loads: Vec<(&str, Load)> = vec![
        ("socket hook", By::Socket.start(&world.client, &long(v4, 30))?),
        ("packet path", By::Packet.start(&world.sandbox, &long(v6, 30))?),
        (
            "node port",
            By::Packet.start(&world.outside, &long(node_port, 30))?,
        ),
    ];
    thread::sleep(Duration::from_millis(500));
    // First as Kubernetes says it of a pod that is told to end, then as if it were gone.
    let mut leaving = endpoints(&[web_1, web_2, web_3]);
    for endpoint in leaving.iter_mut().rev().take(2) {
        (endpoint.ready, endpoint.terminating) = (false, true);
    }
    WEB.write_endpoints(&world.manifests, &leaving)?;
    println!(
        "terminating: settled after {:?}",
        world.settled(WEB, &[web_1, web_2])?
    );
    for (target, by) in [(v4, By::Socket), (v6, By::Packet)] {
        let host = if by == By::Socket {
            &world.client
        } else {
            &world.sandbox
        };
        let report = by.connect(host, &ConnectOptions::new(target, 30, 5))?;
        figures("new ones while web-3 is leaving", &report);
        ensure!(report.is_clean() && report.backend("web-3") == 0, "{report:?}");
    }
    thread::sleep(Duration::from_millis(500));
    WEB.write(&world.manifests, &[web_1, web_2])?;
    thread::sleep(Duration::from_secs(1));
    for (what, load) in loads {
        let report = load.stop()?;
        figures(&format!("long ones, {what}"), &report);
        println!("  {} messages", report.messages);
        ensure!(
            report.is_clean() && report.ok == 30 && report.backend("web-3") > 0,
            "{what}: {report:?}"
        );
        ensure!(report.messages > 30 * 15, "{what}: {} messages", report.messages);
    }
    Ok(())
}

#[test]
fn a_service_is_deleted_and_made_again() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("again")?;
    let [web_1, ..] = &world.web;
    let [v4, v6] = SOLO.tcp();
    let loads = [
        By::Socket.start(&world.client, &long(v4, 10))?,
        By::Packet.start(&world.sandbox, &long(v4, 10))?,
        By::Packet.start(&world.sandbox, &long(v6, 10))?,
    ];
    thread::sleep(Duration::from_millis(300));
    for round in 0..3 {
        world.manifests.remove(&SOLO.file())?;
        world.settled_gone(SOLO)?;
        for (host, by) in [(&world.client, By::Socket), (&world.sandbox, By::Packet)] {
            for target in [v4, v6] {
                let timeout = Duration::from_millis(300);
                let report = by.connect(
                    host,
                    &ConnectOptions {
                        timeout,
                        ..ConnectOptions::new(target, 4, 4)
                    },
                )?;
                ensure!(
                    report.ok == 0,
                    "{by:?} hook, {target}, no such Service: {report:?}"
                );
            }
        }
        SOLO.write(&world.manifests, &[web_1])?;
        println!(
            "round {round}: there again after {:?}",
            world.settled(SOLO, &[web_1])?
        );
        for (host, by) in [(&world.client, By::Socket), (&world.sandbox, By::Packet)] {
            for target in [v4, v6] {
                let report = by.connect(host, &ConnectOptions::new(target, 20, 4))?;
                ensure!(report.is_clean(), "{by:?} hook, {target}, made again: {report:?}");
            }
        }
    }
    for load in loads {
        let report = load.stop()?;
        figures("long ones over three deletions", &report);
        ensure!(report.is_clean() && report.ok == 10, "{report:?}");
    }
    Ok(())
}

/// Runs a stream of datagrams while the one backend is replaced by another.
fn assert_turns(world: &World, (by, connected): (By, bool), target: SocketAddr) -> Result<()> {
    let [web_1, web_2, _] = &world.web;
    SOLO.write(&world.manifests, &[web_1])?;
    world.settled(SOLO, &[web_1])?;
    let host = if by == By::Socket {
        world.client.clone()
    } else {
        world.sandbox.clone()
    };
    let probe = Probe::Stream {
        target,
        connected,
        millis: 800,
    };
    let stream = thread::spawn(move || by.probe(&host, &probe));
    thread::sleep(Duration::from_millis(400));
    let begin = clock::now();
    SOLO.write(&world.manifests, &[web_2])?;
    let settled = world.settled(SOLO, &[web_2])?;
    let finding = stream.join().ok().context("the stream panicked")??;
    println!(
        "UDP connected={connected}, {by:?} hook, {}: {:?} {:?}, longest silence {} ms; settled after {settled:?} of {:?}",
        family(target),
        finding.names,
        finding.counts,
        finding.longest_silence_ms,
        begin.elapsed()
    );
    ensure!(
        finding.error.is_none() && finding.names == ["web-1", "web-2"],
        "{finding:?}"
    );
    // A datagram every 5 ms: at most a few fall between the backends.
    ensure!(finding.longest_silence_ms < 200, "{finding:?}");
    Ok(())
}

#[test]
fn udp_leaves_a_backend_at_once() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("udpmove")?;
    for target in SOLO.udp() {
        // A pod's connected socket is served by the packet path even in the node's cgroup.
        assert_turns(&world, (By::Socket, true), target)?;
        assert_turns(&world, (By::Socket, false), target)?;
        assert_turns(&world, (By::Packet, true), target)?;
        assert_turns(&world, (By::Packet, false), target)?;
    }
    Ok(())
}

#[test]
fn udp_leaves_a_backend_that_was_the_last() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("udplast")?;
    let [web_1, web_2, _] = &world.web;
    let [target, _] = SOLO.udp();
    let host = world.sandbox.clone();
    let probe = Probe::Stream {
        target,
        connected: true,
        millis: 1500,
    };
    let stream = thread::spawn(move || By::Packet.probe(&host, &probe));
    thread::sleep(Duration::from_millis(300));
    SOLO.write(&world.manifests, &[])?;
    world.settled(SOLO, &[])?;
    thread::sleep(Duration::from_millis(400));
    SOLO.write(&world.manifests, &[web_2])?;
    world.settled(SOLO, &[web_2])?;
    let finding = stream.join().ok().context("the stream panicked")??;
    println!(
        "one, none, another: {:?} {:?}, silence {} ms",
        finding.names, finding.counts, finding.longest_silence_ms
    );
    ensure!(finding.names == [web_1.name(), web_2.name()], "{finding:?}");
    ensure!(
        (300..700).contains(&finding.longest_silence_ms),
        "nobody answers while there is nobody: {finding:?}"
    );
    Ok(())
}
