//! Session affinity: a client's connections go to one backend, however it comes, for as long as it should.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_lab::manifest::Endpoint;
use weir_lab::peer::connect::ConnectOptions;
use weir_lab::{Host, clock};
use weir_node::services::{Known, TARGET, endpoints, family};
use weir_node::{By, World, can_run};

/// Three backends, like `web`.
const STICKY: Known = Known {
    name: "sticky",
    number: 17,
    target: TARGET,
};

/// Writes the Service; no time-out means no affinity.
fn write(world: &World, timeout: Option<u32>, endpoints: &[Endpoint]) -> Result<()> {
    let mut service = STICKY.service();
    if let Some(seconds) = timeout {
        service = service.spec("sessionAffinity: ClientIP").spec(&format!(
            "sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}"
        ));
    }
    let mut documents = vec![service.to_yaml()];
    documents.extend(service.slices(endpoints));
    world.manifests.write(&STICKY.file(), &documents)
}

/// The standard world with the Service.
fn world(prefix: &str, timeout: u32) -> Result<World> {
    let world = World::new(prefix)?;
    let [web_1, web_2, web_3] = &world.web;
    let pods = [web_1, web_2, web_3];
    write(&world, Some(timeout), &endpoints(&pods))?;
    world.settled(STICKY, &pods)?;
    Ok(world)
}

/// The one backend of all connections of a client. The first is alone: of two that begin at once, on two CPUs, one takes a
/// turn in vain, and the clients after it would not have the backends that a test counts on.
fn backend(by: By, host: &Host, options: &ConnectOptions) -> Result<String> {
    let first = ConnectOptions {
        count: 1,
        ..options.clone()
    };
    let first = one_backend(by, host, &first)?;
    ensure!(one_backend(by, host, options)? == first, "{:?}", options.target);
    Ok(first)
}

fn one_backend(by: By, host: &Host, options: &ConnectOptions) -> Result<String> {
    let report = by.connect(host, options)?;
    ensure!(report.is_clean(), "{:?}: {report:?}", options.target);
    let names: Vec<_> = report.backends.keys().cloned().collect();
    let [name] = names.as_slice() else {
        anyhow::bail!("{by:?} hook, {:?}: several backends: {report:?}", options.target);
    };
    Ok(name.clone())
}

fn tcp(target: SocketAddr) -> ConnectOptions {
    ConnectOptions::new(target, 60, 6)
}

#[test]
fn a_client_has_one_backend_however_it_comes() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = world("affone", 600)?;
    let node_ports = world.at_n1(STICKY.node_tcp());
    for (cluster_ip, node_port) in STICKY.tcp().into_iter().zip(node_ports) {
        // A pod's processes by the socket hook, which leaves them, and by their packets alone.
        let pod = backend(By::Socket, &world.client, &tcp(cluster_ip))?;
        for target in [cluster_ip, node_port] {
            for by in By::BOTH {
                ensure!(
                    backend(by, &world.client, &tcp(target))? == pod,
                    "{by:?} {target}"
                );
            }
        }
        let sandbox = backend(By::Packet, &world.sandbox, &tcp(node_port))?;
        ensure!(backend(By::Packet, &world.sandbox, &tcp(cluster_ip))? == sandbox);
        let node = backend(By::Socket, &world.n1, &tcp(node_port))?;
        ensure!(backend(By::Socket, &world.n1, &tcp(cluster_ip))? == node);
        let outside = backend(By::Packet, &world.outside, &tcp(node_port))?;
        ensure!(backend(By::Packet, &world.outside, &tcp(node_port))? == outside);
        println!(
            "{}: pod {pod}, sandbox {sandbox}, node {node}, outside {outside}",
            family(cluster_ip)
        );
        // Only a client's first connection takes a turn: three clients, three backends, and the fourth begins anew.
        ensure!(BTreeSet::from([&pod, &sandbox, &node]).len() == 3 && outside == pod);
    }
    Ok(())
}

#[test]
fn datagrams_have_one_backend_too() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = world("affudp", 600)?;
    for target in STICKY.udp() {
        let datagrams = ConnectOptions {
            udp: true,
            ..ConnectOptions::new(target, 60, 6)
        };
        let connected = ConnectOptions {
            connected: true,
            ..datagrams.clone()
        };
        let mut found = BTreeSet::new();
        for (host, ways) in [
            (&*world.client, &By::BOTH[..]),
            (&*world.sandbox, &[By::Packet]),
            (&*world.n1, &[By::Socket]),
        ] {
            let first = backend(ways[0], host, &datagrams)?;
            for by in ways {
                for options in [&datagrams, &connected] {
                    ensure!(backend(*by, host, options)? == first, "{by:?} {target}");
                }
            }
            found.insert(first);
        }
        ensure!(found.len() == 3, "{target}: {found:?}");
    }
    Ok(())
}

#[test]
fn a_client_that_stays_away_is_spread_again() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = world("afftime", 2)?;
    let [v4, v6] = STICKY.tcp();
    for (by, host, target) in [
        (By::Socket, &*world.client, v4),
        (By::Packet, &*world.client, v6),
        (By::Socket, &*world.n1, v4),
    ] {
        let one = ConnectOptions::new(target, 1, 1);
        let first = backend(by, host, &one)?;
        // It comes back in time, for twice as long as the time-out.
        let begin = clock::now();
        while begin.elapsed() < Duration::from_secs(4) {
            thread::sleep(Duration::from_millis(700));
            ensure!(
                backend(by, host, &one)? == first,
                "{by:?} {target}: left too early"
            );
        }
        // Seconds are counted whole: it may take one more.
        thread::sleep(Duration::from_millis(3300));
        let second = backend(by, host, &one)?;
        println!("{by:?}, {}: {first}, then {second}", family(target));
        ensure!(second != first, "{by:?} {target}: it never leaves");
    }
    Ok(())
}

#[test]
fn a_client_moves_when_its_backend_leaves_and_stays_there() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = world("affmove", 600)?;
    let [web_1, web_2, web_3] = &world.web;
    let pods = [web_1, web_2, web_3];
    let clients = [
        (By::Packet, &*world.client),
        (By::Packet, &*world.sandbox),
        (By::Socket, &*world.n1),
    ];
    let target = STICKY.tcp()[0];
    let where_all = || -> Result<Vec<String>> {
        clients
            .iter()
            .map(|(by, host)| backend(*by, host, &tcp(target)))
            .collect()
    };
    let mut before = where_all()?;
    // Gone, and terminating, which is kept for its connections only.
    for (gone, terminating) in [(0, false), (1, true)] {
        let name = format!("web-{}", gone + 1);
        let mut left = endpoints(&pods);
        for endpoint in left.iter_mut().skip(2 * gone).take(2) {
            (endpoint.ready, endpoint.terminating) = (false, terminating);
        }
        let staying = pods.iter().enumerate().filter(|(at, _)| *at != gone);
        let staying: Vec<_> = staying.map(|(_, pod)| *pod).collect();
        write(&world, Some(600), &left)?;
        world.settled(STICKY, &staying)?;
        let without = where_all()?;
        for (now, then) in without.iter().zip(&before) {
            ensure!(*now != name && (then == now || *then == name), "{then} to {now}");
        }
        ensure!(without != before, "{before:?}: nobody was at {name}");
        write(&world, Some(600), &endpoints(&pods))?;
        world.settled(STICKY, &pods)?;
        ensure!(where_all()? == without, "it is back, and nobody asked for it");
        println!("without {name}: {before:?} to {without:?}");
        before = without;
    }
    Ok(())
}

/// What `weir affinity` says of a client.
fn told(world: &World, client: Option<&str>) -> Result<Value> {
    let answer = world
        .n1
        .weir(&["affinity", "--service", STICKY.name, "--output", "json"])?;
    let rows: Value = serde_json::from_str(&answer)?;
    let items = rows.get("items").and_then(Value::as_array).context("no list")?;
    let mut found = items
        .iter()
        .filter(|row| row.get("client").and_then(Value::as_str) == client);
    found
        .next()
        .cloned()
        .with_context(|| format!("{client:?} is not in {answer}"))
}

#[test]
fn an_agent_that_dies_or_starts_changes_nothing() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let mut world = world("affkill", 600)?;
    let target = STICKY.tcp()[0];
    let both = |world: &World| -> Result<[String; 2]> {
        Ok([
            backend(By::Packet, &world.client, &tcp(target))?,
            backend(By::Socket, &world.n1, &tcp(target))?,
        ])
    };
    let before = both(&world)?;
    world.weir()?.kill9()?;
    ensure!(both(&world)? == before, "without an agent");
    for _ in 0..3 {
        world.weir()?.restart()?;
        ensure!(both(&world)? == before, "with another agent");
    }
    for client in [Some("10.244.1.4"), None] {
        let row = told(&world, client)?;
        let number = |key: &str| row.get(key).and_then(Value::as_u64);
        ensure!(row.get("next").and_then(Value::as_str) == Some("stays"), "{row}");
        ensure!(
            number("timeout") == Some(600) && number("idle") < Some(60),
            "{row}"
        );
    }
    Ok(())
}

#[test]
fn affinity_is_switched_for_a_living_service() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = world("affswitch", 600)?;
    let [web_1, web_2, web_3] = &world.web;
    let pods = [web_1, web_2, web_3];
    let target = STICKY.tcp()[0];
    backend(By::Packet, &world.client, &tcp(target))?;
    for timeout in [None, Some(600)] {
        write(&world, timeout, &endpoints(&pods))?;
        let wanted = u64::from(timeout.unwrap_or(0));
        let done = clock::wait_until(Duration::from_secs(5), || {
            let rows = weir_node::services_json(&world.n1).unwrap_or_default();
            rows.iter()
                .filter(|row| row.get("name").and_then(Value::as_str) == Some(STICKY.name))
                .all(|row| row.get("affinityTimeout").and_then(Value::as_u64) == Some(wanted))
        });
        ensure!(done, "affinity is not {timeout:?}");
        for by in By::BOTH {
            let report = by.connect(&world.client, &tcp(target))?;
            let spread = report.backends.len();
            ensure!(
                report.is_clean() && spread == if timeout.is_some() { 1 } else { 3 },
                "{report:?}"
            );
        }
    }
    Ok(())
}
