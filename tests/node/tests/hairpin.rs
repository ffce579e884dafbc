//! A pod that reaches itself through its Service, and clients that look alike to one backend.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_lab::peer::connect::ConnectOptions;
use weir_lab::{Host, clock};
use weir_node::probe::Probe;
use weir_node::services::{REMOTE, SOLO, TARGET, TWIN, WEB, family};
use weir_node::{By, World, can_run, figures};

#[test]
fn p15_a_pod_reaches_itself() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("hairpin")?;
    let [web_1, ..] = &world.web;
    let frontends = SOLO
        .tcp()
        .into_iter()
        .chain(world.at_n1(SOLO.node_tcp()))
        .map(|target| (target, false))
        .chain(
            SOLO.udp()
                .into_iter()
                .chain(world.at_n1(SOLO.node_udp()))
                .map(|target| (target, true)),
        );
    for (target, udp) in frontends {
        for by in By::BOTH {
            for connected in [false, true] {
                if connected && !udp {
                    continue;
                }
                let options = ConnectOptions {
                    udp,
                    connected,
                    ..ConnectOptions::new(target, 50, 10)
                };
                let report = by.connect(web_1, &options)?;
                let kind = if udp { "UDP" } else { "TCP" };
                figures(
                    &format!("hairpin {target} {kind} connected={connected}, {by:?} hook"),
                    &report,
                );
                ensure!(report.is_clean() && report.backend("web-1") == 50, "{report:?}");
            }
        }
    }
    Ok(())
}

/// Answers come back to the address that the route chose, also if it is one that only this link knows.
#[test]
fn p15_a_pod_reaches_itself_over_a_link_with_an_address_of_its_own() -> Result<()> {
    if !can_run(&["ip"]) {
        return Ok(());
    }
    let world = World::new("hairlink")?;
    let [web_1, ..] = &world.web;
    let link = web_1.host_interface();
    for address in ["169.254.1.1/32", "10.244.1.254/32 scope link"] {
        world.n1.host().sh(&format!("ip addr add {address} dev {link}"))?;
        let [target, _] = SOLO.udp();
        let options = ConnectOptions {
            udp: true,
            connected: true,
            ..ConnectOptions::new(target, 20, 5)
        };
        let mut last = None;
        // Node 1 hears of its new address within a second.
        let answered = clock::wait_until(Duration::from_secs(10), || {
            last = By::Packet.connect(web_1, &options).ok();
            last.as_ref()
                .is_some_and(|report| report.is_clean() && report.backend("web-1") == 20)
        });
        ensure!(answered, "{address}: {last:?}");
        let address = address.split_once(' ').map_or(address, |(address, _)| address);
        world.n1.host().sh(&format!("ip addr del {address} dev {link}"))?;
    }
    Ok(())
}

#[test]
fn one_client_port_to_two_services_with_one_backend() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("samecport")?;
    for (udp, ones, twins) in [
        (false, REMOTE.tcp(), TWIN.tcp()),
        (true, REMOTE.udp(), TWIN.udp()),
    ] {
        for ((one, twin), source) in ones.into_iter().zip(twins).zip(world.client.addresses()) {
            // To the backend, both would be the same client with the same port.
            let held = |target: SocketAddr| ConnectOptions {
                udp,
                connected: udp,
                hold: Duration::from_millis(800),
                source: Some(SocketAddr::new(source, 40_000)),
                ..ConnectOptions::new(target, 1, 1)
            };
            let first = By::Packet.start(&world.client, &held(one))?;
            std::thread::sleep(Duration::from_millis(100));
            let second = By::Packet.start(&world.client, &held(twin))?;
            for (what, load) in [("first", first), ("second", second)] {
                let report = load.wait().context(what)?;
                figures(
                    &format!("{what} with port 40000, UDP {udp}, {}", family(one)),
                    &report,
                );
                println!("  {} messages", report.messages);
                ensure!(
                    report.is_clean() && report.backend("web-3") == 1 && report.messages > 5,
                    "{report:?}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn one_udp_socket_to_two_services_with_one_backend() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("twovips")?;
    let ask = |who: &str, (by, host): (By, &Host), targets: [SocketAddr; 2], at_once: bool| {
        let probe = Probe::Several {
            targets: targets.to_vec(),
            rounds: 20,
            at_once,
        };
        let finding = by.probe(host, &probe)?;
        println!(
            "{who}, {by:?} hook, {targets:?}, at once {at_once}: {} right, {} by web-3, {:?}",
            finding.ok,
            finding.answers_of("web-3"),
            finding.error
        );
        ensure!(
            finding.is_clean(40) && finding.answers_of("web-3") > 0,
            "{who}: {finding:?}"
        );
        Ok(())
    };
    for ((one, twin), web) in REMOTE.udp().into_iter().zip(TWIN.udp()).zip(WEB.udp()) {
        let pod = (By::Socket, world.client.host());
        for at_once in [true, false] {
            ask("pod", pod, [one, twin], at_once)?;
            ask(
                "sandbox",
                (By::Packet, world.sandbox.host()),
                [one, twin],
                at_once,
            )?;
        }
        // A host process has no packet path: it must ask one after the other, or have another backend to turn to.
        let host = (By::Socket, world.n1.host());
        ask("host process", host, [one, twin], false)?;
        // At least one of three turns is that of the backend in use.
        for _ in 0..3 {
            ask("host process", host, [one, web], true)?;
            ask("pod", pod, [one, web], true)?;
        }
    }
    Ok(())
}

#[test]
fn p6_a_direct_connection_uses_the_port_of_an_earlier_one() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("direct")?;
    let [_, _, web_3] = &world.web;
    let frontends = REMOTE
        .tcp()
        .into_iter()
        .zip(web_3.addresses())
        .zip(world.client.addresses());
    for ((frontend, backend), source) in frontends {
        let direct = SocketAddr::new(backend, TARGET);
        // What is left of the first must not translate the answers to the second.
        for (number, target) in [frontend, direct, frontend, direct].into_iter().enumerate() {
            let options = ConnectOptions {
                source: Some(SocketAddr::new(source, 41_000)),
                timeout: Duration::from_secs(2),
                ..ConnectOptions::new(target, 1, 1)
            };
            let report = By::Packet.connect(&world.client, &options)?;
            figures(
                &format!("connection {number} from port 41000, to {target}"),
                &report,
            );
            ensure!(report.is_clean() && report.backend("web-3") == 1, "{report:?}");
        }
    }
    Ok(())
}
