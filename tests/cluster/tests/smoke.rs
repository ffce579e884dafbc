//! What a user expects of a cluster with weir, in the order in which he would try it.

use anyhow::{Result, ensure};
use cluster_test::{Cluster, SERVERS, Web};
use weir_lab::peer::Report;

/// Connections a second, of each client under load.
const RATE: u64 = 500;

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
    assert_eq!(ready, "True True");
    let path = "jsonpath={.status.numberReady}";
    let weir = cluster.kubectl(&["-n", "kube-system", "get", "daemonset", "weir", "-o", path])?;
    assert_eq!(weir, "2");
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
    let answer = cluster.kubectl(&[
        "run",
        "names",
        "--rm",
        "--attach",
        "--restart=Never",
        "--quiet",
        "--image=registry.weir.test/e2e/agnhost:2.63.0",
        "--image-pull-policy=Never",
        "--command",
        "--",
        "nslookup",
        "kubernetes.default",
    ])?;
    assert!(answer.contains("10.96.0.10#53"), "{answer}");
    assert!(answer.contains("Address: 10.96.0.1\n"), "{answer}");
    Ok(())
}

#[test]
fn a_service_is_reached_from_pods_on_both_nodes() -> Result<()> {
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
    // All of them: two of the clients take turns at one node.
    let mut sum = Report::default();
    for report in reports {
        sum.ok += report.ok;
        for (server, count) in report.backends {
            *sum.backends.entry(server).or_default() += count;
        }
    }
    evenly(&sum)
}

/// Runs `work` while a pod on each node, and a machine outside, make connections for so many seconds.
fn under_load(
    cluster: &Cluster,
    web: &Web,
    seconds: u64,
    work: impl FnOnce() -> Result<()>,
) -> Result<Vec<Report>> {
    let count = RATE * seconds;
    let inside = web.addresses()?;
    let mut loads = Vec::new();
    for (node, address) in cluster.nodes.iter().zip(&inside) {
        loads.push(web.from_pod(&node.name, address, count, RATE)?);
    }
    if let Some(address) = web.node_addresses()?.first() {
        loads.push(web.from_outside(address, count, RATE)?);
    }
    let done = work();
    let reports: Result<Vec<_>> = loads
        .into_iter()
        .map(cluster_test::Load::finish_without_loss)
        .collect();
    done?;
    reports
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
