//! What kubelets, load balancers and Prometheus ask an agent that serves.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_lab::manifest::node_yaml;
use weir_lab::peer::connect::ConnectOptions;
use weir_lab::{Host, Weir, clock};
use weir_node::ask::{ask, at, becomes};
use weir_node::services::WEB;
use weir_node::{By, World, WorldOptions, can_run, figures, millis};

const PROBES: u16 = 10256;
const METRICS: u16 = 10249;
const WITHIN: Duration = Duration::from_secs(5);

/// The samples of a scrape; an error where a line is neither a sample nor a comment.
fn samples(text: &str) -> Result<BTreeMap<String, f64>> {
    let lines = text.lines().filter(|line| !line.starts_with("# "));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
            let name = series.split('{').next().unwrap_or_default();
            ensure!(
                text.contains(&format!("# TYPE {name} ")) || name.contains("_seconds_"),
                "{line} has no TYPE"
            );
            Ok((series.to_owned(), value.parse().with_context(|| line.to_owned())?))
        })
        .collect()
}

fn scrape(host: &Host) -> Result<BTreeMap<String, f64>> {
    let begin = clock::now();
    let answer = ask(host, at(Ipv4Addr::LOCALHOST, METRICS), "/metrics")?;
    ensure!(answer.code == 200, "{answer:?}");
    let text = answer.body;
    println!(
        "a scrape of {} bytes took {} ms",
        text.len(),
        millis(begin.elapsed())
    );
    samples(&text)
}

#[test]
fn probes_follow_the_node_and_scrapes_count() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let mut world = World::new("http")?;
    probes_follow_the_node(&world)?;
    scrapes_count(&world)?;
    probes_know_of_a_node_that_is_not_there(&mut world)
}

fn probes_follow_the_node(world: &World) -> Result<()> {
    let (n1, outside) = (world.n1.host(), &world.outside);
    let everywhere = [
        (n1, at(Ipv4Addr::LOCALHOST, PROBES)),
        (n1, at(Ipv6Addr::LOCALHOST, PROBES)),
        (outside, at(n1.v4(), PROBES)),
        (outside, at(n1.v6(), PROBES)),
    ];
    for (from, to) in everywhere {
        let body = becomes(from, to, "/healthz", 200)?;
        ensure!(body.contains(r#""nodeEligible":true"#), "{to}: {body}");
        ensure!(body.contains(r#""IPv6":{"#), "{to}: {body}");
        becomes(from, to, "/livez", 200)?;
    }
    let going = format!(
        "{}spec:\n  taints:\n  - key: ToBeDeletedByClusterAutoscaler\n    effect: NoSchedule\n",
        node_yaml(&world.n1)
    );
    world
        .manifests
        .write("nodes.yaml", &[going, node_yaml(&world.n2)])?;
    let probes = at(n1.v4(), PROBES);
    let body = becomes(outside, probes, "/healthz", 503)?;
    ensure!(
        body.contains(r#""nodeEligible":false"#) && body.contains(r#""healthy":true"#),
        "{body}"
    );
    becomes(outside, probes, "/livez", 200)?;
    let both = [node_yaml(&world.n1), node_yaml(&world.n2)];
    world.manifests.write("nodes.yaml", &both)?;
    becomes(outside, probes, "/healthz", 200)?;
    Ok(())
}

/// An agent that starts while its Node is gone has no older word for that.
fn probes_know_of_a_node_that_is_not_there(world: &mut World) -> Result<()> {
    let probes = at(world.n1.v4(), PROBES);
    world.manifests.write("nodes.yaml", &[node_yaml(&world.n2)])?;
    becomes(&world.outside, probes, "/healthz", 503)?;
    world.weir()?.restart()?;
    let body = becomes(&world.outside, probes, "/healthz", 503)?;
    ensure!(body.contains(r#""nodeEligible":false"#), "{body}");
    becomes(&world.outside, probes, "/livez", 200)?;
    let both = [node_yaml(&world.n1), node_yaml(&world.n2)];
    world.manifests.write("nodes.yaml", &both)?;
    becomes(&world.outside, probes, "/healthz", 200)?;
    Ok(())
}

fn scrapes_count(world: &World) -> Result<()> {
    let (n1, outside) = (world.n1.host(), &world.outside);
    // What the agent counts is at most a second old.
    let all = clock::wait_until(WITHIN, || {
        scrape(n1).is_ok_and(|samples| samples.get("weir_interfaces").is_some_and(|count| *count >= 4.0))
    });
    ensure!(all, "the interfaces do not appear: {:?}", scrape(n1)?);
    let before = scrape(n1)?;
    let [web, _] = WEB.tcp();
    let report = By::Packet.connect(&world.sandbox, &ConnectOptions::new(web, 30, 1))?;
    figures("through the packet path", &report);
    ensure!(report.is_clean(), "{report:?}");
    let after = scrape(n1)?;
    let of = |samples: &BTreeMap<String, f64>, series: &str| {
        samples
            .get(series)
            .copied()
            .with_context(|| format!("no {series} in {samples:?}"))
    };
    for (series, least) in [
        ("weir_ready", 1.0),
        ("weir_services", 7.0),
        ("weir_backends", 9.0),
        ("weir_flows", 1.0),
        ("weir_interfaces", 4.0),
        ("weir_map_rows{map=\"SERVICES\"}", 7.0),
        ("weir_steps_total{result=\"done\"}", 20.0),
        ("kubeproxy_proxy_healthz_total{code=\"503\"}", 1.0),
        ("kubeproxy_sync_proxy_rules_service_changes_total", 7.0),
        (
            "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"}",
            1.0,
        ),
        (
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"}",
            1.7e9,
        ),
        ("process_resident_memory_bytes", 1e6),
    ] {
        let value = of(&after, series)?;
        ensure!(value >= least, "{series} is {value}");
    }
    let sum = |samples: &BTreeMap<String, f64>| -> f64 {
        let packets = samples
            .iter()
            .filter(|(series, _)| series.starts_with("weir_packets_total{"));
        packets.map(|(_, count)| count).sum()
    };
    ensure!(sum(&after) > sum(&before), "{before:?} {after:?}");
    ensure!(
        ask(outside, at(n1.v4(), METRICS), "/metrics").is_err(),
        "metrics are for the node itself"
    );
    Ok(())
}

#[test]
fn a_taken_port_costs_its_answers_only() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let options = WorldOptions {
        no_agents: true,
        ..WorldOptions::default()
    };
    let mut world = World::with("httptaken", options)?;
    let squatter = world
        .n1
        .run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PROBES)))??;
    world.start_agents()?;
    let [web, _] = WEB.tcp();
    let report = By::Socket.connect(world.client.host(), &ConnectOptions::new(web, 30, 1))?;
    ensure!(report.is_clean(), "{report:?}");
    let log = world.weir()?.log();
    // The words for the number are the C library's, and the image has another one.
    let is_told = |line: &&str| {
        line.contains("cannot answer health checks at 0.0.0.0:10256: ") && line.contains("(os error 98)")
    };
    let told = log.lines().filter(is_told).count();
    ensure!(told == 1, "told {told} times:\n{log}");
    drop(squatter);
    becomes(world.n1.host(), at(world.n1.v4(), PROBES), "/healthz", 200)?;
    let log = world.weir()?.log();
    ensure!(
        log.contains("health checks are answered at 0.0.0.0:10256 now"),
        "{log}"
    );
    Ok(())
}

#[test]
fn the_configuration_of_kube_proxy_is_read() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let options = WorldOptions {
        no_agents: true,
        ..WorldOptions::default()
    };
    let world = World::with("httpconf", options)?;
    let file = world.lab.dir().join("config.conf");
    let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\n\
                clusterCIDR: 10.244.0.0/16\nhealthzBindAddress: 0.0.0.0:11256\nmetricsBindAddress: 0.0.0.0\n\
                nodePortAddresses: [192.0.2.0/24, 'fd00::/8']\n";
    std::fs::write(&file, text)?;
    let file = file.display().to_string();
    let agent = Weir::start(&world.n1, world.manifests.dir(), &["--config", &file])?;
    let n1 = world.n1.host();
    becomes(&world.outside, at(n1.v4(), 11256), "/livez", 200)?;
    becomes(&world.outside, at(n1.v6(), METRICS), "/metrics", 200)?;
    let log = agent.log();
    ensure!(log.matches("no meaning for weir: mode)").count() == 1, "{log}");
    // The node's IPv4 address is in no range, its IPv6 address is in one.
    let tries = |target| ConnectOptions::new(target, 5, 1);
    let [v4, v6] = world.at_n1(WEB.node_tcp());
    let report = By::Packet.connect(&world.outside, &tries(v6))?;
    ensure!(report.is_clean(), "{report:?}");
    let report = By::Packet.connect(&world.outside, &tries(v4))?;
    ensure!(report.errors.refused == 5, "{report:?}");
    Ok(())
}
