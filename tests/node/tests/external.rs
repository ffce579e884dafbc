//! Addresses that others route to the node: a load balancer's, and external IPs.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_lab::manifest::{Port, Service};
use weir_lab::peer::Report;
use weir_lab::peer::connect::ConnectOptions;
use weir_lab::{Host, Weir, clock};
use weir_node::services::{TARGET, TCP, UDP, WEB, endpoints};
use weir_node::{By, World, WorldOptions, can_run, figures, services_json};

/// What is routed to node 1, IPv4 first.
const VIPS: [&str; 2] = ["198.51.100.10", "fd00:198:51::10"];
const TRIES: u64 = 60;

/// A Service with both addresses as `spec` and `status` say, and the backends `web-1` (node 1) and `web-3` (node 2).
fn write(world: &World, spec: &[&str], status: bool) -> Result<()> {
    let ips: [IpAddr; 2] = ["10.96.0.50".parse()?, "fd00:10:96::50".parse()?];
    let ports = [Port::tcp("http", TCP, TARGET), Port::udp("echo", UDP, TARGET)];
    let service = spec
        .iter()
        .fold(Service::new("vip", &ips, &ports), |service, line| {
            service.spec(line)
        });
    let mut yaml = service.to_yaml();
    if status {
        let [v4, v6] = VIPS;
        let ingress = format!("[{{ip: {v4}}}, {{ip: \"{v6}\"}}]");
        writeln!(yaml, "status: {{loadBalancer: {{ingress: {ingress}}}}}")?;
    }
    let [web_1, _, web_3] = &world.web;
    let mut documents = vec![yaml];
    documents.extend(service.slices(&endpoints(&[web_1, web_3])));
    world.manifests.write("vip.yaml", &documents)?;
    let mut rows = Vec::new();
    let served = clock::wait_until(Duration::from_secs(5), || {
        rows = services_json(&world.n1).unwrap_or_default();
        let at = |vip: &&str| {
            rows.iter()
                .any(|row| row.get("address").is_some_and(|at| at == *vip))
        };
        VIPS.iter().all(at)
    });
    ensure!(served, "{VIPS:?} are not served: {rows:?}");
    let (n1_v4, n1_v6) = (world.n1.v4(), world.n1.v6());
    let [v4, v6] = VIPS;
    world.outside.ip(&format!(
        "route replace {v4}/32 via {n1_v4}\nroute replace {v6}/128 via {n1_v6} dev eth0\n"
    ))
}

/// Both protocols in both families, with the client's own address in that family.
fn ways(host: &Host) -> Result<Vec<(ConnectOptions, IpAddr)>> {
    let mut ways = Vec::new();
    for (vip, own) in VIPS.into_iter().zip(host.addresses()) {
        for (port, udp) in [(TCP, false), (UDP, true)] {
            let options = ConnectOptions {
                udp,
                connected: udp,
                timeout: Duration::from_secs(1),
                ..ConnectOptions::new(SocketAddr::new(vip.parse()?, port), TRIES, 5)
            };
            ways.push((options, own));
        }
    }
    Ok(ways)
}

fn insiders(world: &World) -> [(&'static str, By, &Host); 3] {
    [
        ("pod", By::Socket, &world.client),
        ("pod", By::Packet, &world.sandbox),
        ("host process", By::Socket, &world.n1),
    ]
}

/// All tries are answered, by both backends.
fn both_backends(world: &World) -> Result<()> {
    for (who, by, host) in insiders(world) {
        for (options, _) in ways(host)? {
            let report = by.connect(host, &options)?;
            figures(&format!("{who} to {}, {by:?} hook", options.target), &report);
            ensure!(is_spread(&report, options.udp), "{report:?}");
        }
    }
    Ok(())
}

/// Everybody was answered, and each backend had its turns. A UDP port that comes back soon is an old flow, not a new one.
fn is_spread(report: &Report, udp: bool) -> bool {
    let even = udp || report.counts() == [TRIES / 2; 2];
    report.is_clean() && report.backends.len() == 2 && even
}

#[test]
fn a_load_balancer_with_policy_local_shows_the_client() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("lblocal")?;
    write(&world, &["externalTrafficPolicy: Local"], true)?;
    for (options, own) in ways(&world.outside)? {
        let report = By::Packet.connect(&world.outside, &options)?;
        figures(&format!("outside to {}", options.target), &report);
        ensure!(
            report.is_clean() && report.backend("web-1") == TRIES,
            "{report:?}"
        );
        let seen = report.seen_as.get(&own.to_string());
        ensure!(seen == Some(&TRIES), "{:?}", report.seen_as);
    }
    both_backends(&world)
}

#[test]
fn an_external_ip_reaches_all_backends() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("externalip")?;
    let [v4, v6] = VIPS;
    write(&world, &[&format!("externalIPs: [{v4}, \"{v6}\"]")], false)?;
    for ((options, own), node) in ways(&world.outside)?.into_iter().zip(
        world
            .n1
            .addresses()
            .into_iter()
            .flat_map(|address| [address, address]),
    ) {
        let report = By::Packet.connect(&world.outside, &options)?;
        figures(&format!("outside to {}", options.target), &report);
        ensure!(is_spread(&report, options.udp), "{report:?}");
        // The backend here sees the client, the one elsewhere this node.
        let here = report.seen_as.get(&own.to_string());
        let there = report.seen_as.get(&node.to_string());
        let (web_1, web_3) = (report.backend("web-1"), report.backend("web-3"));
        ensure!(
            (here, there) == (Some(&web_1), Some(&web_3)),
            "{:?}",
            report.seen_as
        );
    }
    both_backends(&world)
}

#[test]
fn source_ranges_let_only_some_in() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("ranges")?;
    // The machine outside, the sandbox, and the node itself.
    let mut ranges = Vec::new();
    for host in [&world.outside, world.sandbox.host(), world.n1.host()] {
        let [v4, v6] = host.addresses();
        ranges.push(format!("\" {v4}/32\", \"{v6}/128\""));
    }
    let list = |ranges: &[String]| format!("loadBalancerSourceRanges: [{}]", ranges.join(", "));
    write(&world, &[&list(&ranges)], true)?;
    let [_, sandbox, node] = insiders(&world);
    for (who, by, host) in [("outside", By::Packet, &world.outside), sandbox, node] {
        for (options, _) in ways(host)? {
            let report = by.connect(host, &options)?;
            figures(&format!("{who} to {}, {by:?} hook", options.target), &report);
            ensure!(is_spread(&report, options.udp), "{who}: {report:?}");
        }
    }
    // This pod was not named; by either hook.
    shut_out("pod", By::Socket, &world.client, &[false, true])?;
    shut_out("pod", By::Packet, &world.client, &[false, true])?;
    let [outside, ..] = ranges.as_slice() else {
        anyhow::bail!("no ranges")
    };
    write(&world, &[&list(std::slice::from_ref(outside))], true)?;
    clock::wait_until(Duration::from_secs(1), || false);
    shut_out("host process", By::Socket, &world.n1, &[false, true])?;
    // Not by UDP: a port that was used above is a flow that goes on.
    shut_out("pod", By::Packet, &world.sandbox, &[false])
}

/// Nothing is answered.
fn shut_out(who: &str, by: By, host: &Host, udp: &[bool]) -> Result<()> {
    let ways = ways(host)?.into_iter();
    for (options, _) in ways.filter(|(options, _)| udp.contains(&options.udp)) {
        let few = ConnectOptions {
            count: 4,
            concurrency: 4,
            timeout: Duration::from_millis(300),
            ..options
        };
        let report = by.connect(host, &few)?;
        figures(&format!("{who} to {}, {by:?} hook", few.target), &report);
        let silent = report.errors.timeout + report.errors.unreachable;
        ensure!((report.ok, silent) == (0, 4), "{who}: {report:?}");
    }
    Ok(())
}

#[test]
fn cluster_ips_are_served_to_the_outside_where_that_is_wanted() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::with(
        "extclusterip",
        WorldOptions {
            no_agents: true,
            ..WorldOptions::default()
        },
    )?;
    for ip in WEB.ips() {
        let via = if ip.is_ipv4() {
            world.n1.v4().to_string()
        } else {
            world.n1.v6().to_string()
        };
        world
            .outside
            .ip(&format!("route replace {ip} via {via} dev eth0\n"))?;
    }
    for wanted in [true, false] {
        let flags: &[&str] = if wanted { &["--external-cluster-ips"] } else { &[] };
        let agent = Weir::start(&world.n1, world.manifests.dir(), flags)?;
        for (target, node) in WEB.tcp().into_iter().zip(world.n1.addresses()) {
            let options = ConnectOptions {
                timeout: Duration::from_secs(1),
                ..ConnectOptions::new(target, if wanted { TRIES } else { 2 }, 5)
            };
            let report = By::Packet.connect(&world.outside, &options)?;
            figures(&format!("outside to {target}, served: {wanted}"), &report);
            if wanted {
                ensure!(
                    report.is_clean() && report.counts() == [TRIES / 3; 3],
                    "{report:?}"
                );
                ensure!(
                    !report
                        .seen_as
                        .contains_key(&world.outside.addresses()[0].to_string()),
                    "{node}: {report:?}"
                );
            } else {
                ensure!(report.counts().is_empty(), "{report:?}");
            }
        }
        drop(agent);
    }
    Ok(())
}
