//! What a user expects of a cluster with weir, in the order in which he would try it.

use anyhow::{Result, bail, ensure};
use cluster_test::{Cluster, Load, SERVERS, Web, fast_enough};
use weir_lab::clock;
use weir_lab::peer::Report;

/// Connections a second that are tried, all in all: a busy machine makes fewer.
const RATE: u64 = 1000;

#[test]
fn every_node_is_ready_and_runs_weir() -> Result<()> {
    let Some(cluster) = Cluster::find()? else {
        return Ok(());
    };
    let ready = cluster.kubectl(&[
        "get",
        "nodes",
        "-o",
        r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#,
    ])?;
    assert_eq!(ready, vec!["True"; cluster.nodes.len()].join(" "));
    let path = "jsonpath={.status.numberReady}";
    let weir = cluster.kubectl(&["-n", "kube-system", "get", "daemonset", "weir", "-o", path])?;
    assert_eq!(weir, cluster.nodes.len().to_string());
    let dns = cluster.kubectl(&[
        "-n",
        "kube-system",
        "get",
        "deployment",
        "coredns",
        "-o",
        "jsonpath={.status.readyReplicas}",
    ])?;
    assert_eq!(dns, "2");
    Ok(())
}

#[test]
fn a_pod_is_told_names() -> Result<()> {
    let Some(cluster) = Cluster::find()? else {
        return Ok(());
    };
    // Not attached to: what a pod says before somebody listens would be lost.
    cluster.kubectl(&[
        "run",
        "names",
        "--restart=Never",
        "--image=registry.weir.test/e2e/agnhost:2.63.0",
        "--image-pull-policy=Never",
        "--command",
        "--",
        "nslookup",
        "kubernetes.default",
    ])?;
    cluster.kubectl(&[
        "wait",
        "pod/names",
        "--for=jsonpath={.status.phase}=Succeeded",
        "--timeout=60s",
    ])?;
    let answer = cluster.kubectl(&["logs", "names"])?;
    cluster.kubectl(&["delete", "pod", "names", "--wait=false"])?;
    assert!(answer.contains("10.96.0.10#53"), "{answer}");
    assert!(answer.contains("Address: 10.96.0.1\n"), "{answer}");
    Ok(())
}

#[test]
fn a_service_is_reached_from_pods_on_every_node() -> Result<()> {
    let Some(cluster) = Cluster::find()? else {
        return Ok(());
    };
    let web = Web::deploy(&cluster, "smoke-pods")?;
    for node in &cluster.nodes {
        let addresses = web.addresses()?;
        ensure!(addresses.len() == 2, "the Service has one family: {addresses:?}");
        for address in addresses {
            let report = web
                .from_pod(&node.name, &address, SERVERS * 100, 0)?
                .finish_without_loss()?;
            evenly(&report)?;
        }
    }
    Ok(())
}

#[test]
fn a_node_port_is_reached_from_outside() -> Result<()> {
    let Some(cluster) = Cluster::find()? else {
        return Ok(());
    };
    let web = Web::deploy(&cluster, "smoke-outside")?;
    for address in web.node_addresses()? {
        let report = web
            .from_outside(&address, SERVERS * 100, 0)?
            .finish_without_loss()?;
        evenly(&report)?;
    }
    Ok(())
}

#[test]
fn a_rolling_update_loses_no_connection() -> Result<()> {
    let Some(cluster) = Cluster::find()? else {
        return Ok(());
    };
    let web = Web::deploy(&cluster, "smoke-update")?;
    let reports = under_load(&cluster, &web, 25, || {
        cluster.restart(&web.namespace, "deployment/web")
    })?;
    for report in reports {
        // The old ones and the new ones.
        let servers = u64::try_from(report.backends.len())?;
        ensure!(
            servers == 2 * SERVERS,
            "{servers} servers answered: was the load over too soon?"
        );
    }
    Ok(())
}

#[test]
fn a_rolling_restart_of_weir_loses_no_connection() -> Result<()> {
    let Some(cluster) = Cluster::find()? else {
        return Ok(());
    };
    let web = Web::deploy(&cluster, "smoke-restart")?;
    let reports = under_load(&cluster, &web, 30, || {
        cluster.restart("kube-system", "daemonset/weir")
    })?;
    // All of them: several clients take turns at one node.
    let mut sum = Report::default();
    for report in reports {
        sum.ok += report.ok;
        for (server, count) in report.backends {
            *sum.backends.entry(server).or_default() += count;
        }
    }
    evenly(&sum)
}

/// Runs `work` while pods on each node, and a machine outside, make connections in both families; what came of them.
///
/// A load that is over before the work is says nothing: then both begin again, with a load twice as long.
fn under_load(
    cluster: &Cluster,
    web: &Web,
    seconds: u64,
    work: impl Fn() -> Result<()>,
) -> Result<Vec<Report>> {
    for seconds in [seconds, 2 * seconds, 4 * seconds] {
        let mut loads = start_loads(cluster, web, seconds)?;
        let start = clock::now();
        let done = work();
        let took = start.elapsed();
        let lasted = loads.iter_mut().all(Load::is_running);
        let reports: Result<Vec<_>> = loads.into_iter().map(Load::finish_without_loss).collect();
        done?;
        let reports = reports?;
        println!("{took:.1?} of work beside {seconds} s of load");
        if lasted {
            fast_enough(
                "connections",
                reports.iter().map(|report| (report.ok, report.elapsed_ms)),
            )?;
            return Ok(reports);
        }
    }
    bail!("no load was as long as the work")
}

/// Clients in pods on each node, and outside, that make connections for so many seconds.
fn start_loads(cluster: &Cluster, web: &Web, seconds: u64) -> Result<Vec<Load>> {
    let inside = web.addresses()?;
    // Those of the first node.
    let outside: Vec<_> = web.node_addresses()?.into_iter().take(2).collect();
    ensure!(inside.len() == 2 && outside.len() == 2, "one family: {inside:?}");
    let clients = inside.len() * cluster.nodes.len() + outside.len();
    // Each server can have its exact share of every client's connections.
    let rate = RATE.div_ceil(u64::try_from(clients)?).next_multiple_of(SERVERS);
    let count = rate * seconds;
    let mut loads = Vec::new();
    for node in &cluster.nodes {
        for address in &inside {
            loads.push(web.from_pod(&node.name, address, count, rate)?);
        }
    }
    for address in &outside {
        loads.push(web.from_outside(address, count, rate)?);
    }
    Ok(loads)
}

/// Every server has had its exact share.
fn evenly(report: &Report) -> Result<()> {
    let counts = report.counts();
    ensure!(
        counts.len() == usize::try_from(SERVERS)? && counts.iter().all(|count| *count == report.ok / SERVERS),
        "not evenly: {counts:?}"
    );
    Ok(())
}
