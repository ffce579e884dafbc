//! weir-ingress in a cluster, as a user installs it: what it serves, and that nobody notices when anything changes.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_test::{Cluster, Front, Requests, fast_enough};
use serde_json::Value;
use weir_lab::clock;
use weir_web::report::Report;

/// How long connections may last when a weir-ingress ends: xtask/src/cluster/addons.rs sets it.
const DRAIN: Duration = Duration::from_secs(30);
/// The four that make the load: what they ask, how, how often, and how many requests a connection is used for.
const LOADS: [(&str, &str, u32, u32); 4] = [
    ("https://shop.weir.test/news", "http1", 220, 20),
    ("https://shop.weir.test/", "http2", 170, 200),
    ("https://calls.weir.test/echo.Echo/Say", "grpc", 110, 100),
    ("https://calls.weir.test/v1/talk", "websocket", 60, 1),
];

fn front<'a>(cluster: Option<&'a Cluster>, namespace: &str) -> Result<Option<Front<'a>>> {
    cluster
        .map(|cluster| Front::deploy(cluster, namespace))
        .transpose()
}

fn number(answer: &Value, field: &str) -> u64 {
    answer.get(field).and_then(Value::as_u64).unwrap_or(0)
}

fn text<'v>(answer: &'v Value, field: &str) -> &'v str {
    answer.get(field).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn two_hosts_and_four_paths_are_served_at_every_node() -> Result<()> {
    let cluster = Cluster::find()?;
    let Some(front) = front(cluster.as_ref(), "ingress-paths")? else {
        return Ok(());
    };
    for (url, status) in [
        ("https://shop.weir.test/", 200),
        ("https://shop.weir.test/news", 200),
        ("https://shop.weir.test/new", 200),
        ("https://calls.weir.test/v1/a/b", 200),
        ("https://calls.weir.test/v1", 200),
        ("https://calls.weir.test/v2", 404),
        ("http://shop.weir.test/", 308),
        ("http://nobody.weir.test/", 404),
    ] {
        let answers = front.ask(url)?;
        ensure!(answers.len() == front.doors(0).len(), "{answers:?}");
        for answer in answers {
            ensure!(number(&answer, "status") == status, "{url}: {answer}");
        }
    }
    Ok(())
}

#[test]
fn a_rolling_update_of_the_backends_fails_no_request() -> Result<()> {
    let cluster = Cluster::find()?;
    let Some(cluster) = &cluster else { return Ok(()) };
    let front = Front::deploy(cluster, "ingress-update")?;
    let reports = under_load(&front, |_| cluster.restart(&front.namespace, "deployment/web"))?;
    // A WebSocket, the last of the four, stays with its pod until that ends.
    for report in reports.iter().take(3) {
        ensure!(report.pods.len() > 3, "old ones and new ones: {:?}", report.pods);
    }
    Ok(())
}

#[test]
fn a_new_certificate_is_shown_and_fails_no_request() -> Result<()> {
    let cluster = Cluster::find()?;
    let Some(front) = front(cluster.as_ref(), "ingress-rotation")? else {
        return Ok(());
    };
    let url = "https://shop.weir.test/";
    let before = front.ask(url)?;
    let before = before
        .first()
        .map_or("", |answer| text(answer, "certificate"))
        .to_owned();
    let reports = under_load(&front, |_| {
        front.rotate()?;
        front.wait(url, "another certificate", |answer| {
            text(answer, "certificate") != before
        })?;
        // Connections that are made from here on are among those that are counted.
        std::thread::sleep(Duration::from_secs(2));
        Ok(())
    })?;
    let http1 = reports.first().map(|report| report.certificates.len());
    ensure!(http1 == Some(2), "the old one and the new one: {http1:?}");
    Ok(())
}

#[test]
fn a_restart_of_weir_ingress_fails_no_request_and_breaks_no_websocket_early() -> Result<()> {
    let cluster = Cluster::find()?;
    let Some(cluster) = &cluster else { return Ok(()) };
    let front = Front::deploy(cluster, "ingress-restart")?;
    let mut restarted = Duration::ZERO;
    let reports = under_load(&front, |begun| {
        restarted = begun.elapsed();
        cluster.restart("kube-system", "daemonset/weir-ingress")
    })?;
    let tunnels = reports.last().and_then(|report| report.first_end_ms);
    let early = tunnels.is_some_and(|end| Duration::from_millis(end) < restarted + DRAIN);
    ensure!(
        !early,
        "a WebSocket ended after {tunnels:?} ms, the restart began after {restarted:?}"
    );
    Ok(())
}

#[test]
fn an_ingress_has_the_addresses_of_the_nodes_that_serve_it() -> Result<()> {
    let cluster = Cluster::find()?;
    let Some(cluster) = &cluster else { return Ok(()) };
    let front = Front::deploy(cluster, "ingress-status")?;
    let words = |args: &[&str]| -> Result<BTreeSet<String>> {
        let said = cluster.kubectl(args)?;
        Ok(said.split_whitespace().map(str::to_owned).collect())
    };
    let inside = "jsonpath={.items[*].status.addresses[?(@.type=='InternalIP')].address}";
    let nodes = words(&["get", "nodes", "-o", inside])?;
    ensure!(nodes.len() >= 2, "{nodes:?}");
    let told = "jsonpath={.items[*].status.loadBalancer.ingress[*].ip}";
    let status = || words(&["-n", &front.namespace, "get", "ingress", "-o", told]);
    let same = clock::wait_until(Duration::from_secs(30), || status().is_ok_and(|now| now == nodes));
    ensure!(same, "{:?}, and not {nodes:?}", status()?);
    Ok(())
}

#[test]
fn what_cannot_be_served_is_an_event_and_others_classes_are_left_alone() -> Result<()> {
    let cluster = Cluster::find()?;
    let Some(cluster) = &cluster else { return Ok(()) };
    let front = Front::deploy(cluster, "ingress-events")?;
    let ingress = |name: &str, class: &str, service: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, namespace: NAMESPACE}}\n\
             spec:\n  ingressClassName: {class}\n  rules:\n    - host: {name}.weir.test\n      http:\n        paths:\n          \
             - {{path: /, pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}\n"
        )
    };
    front.apply("apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: other}\nspec: {controller: example.com/other}\n")?;
    front.apply(&ingress("broken", "weir", "missing"))?;
    front.apply(&ingress("others", "other", "web"))?;
    front.wait("http://broken.weir.test/", "500", |answer| {
        number(answer, "status") == 500
    })?;
    front.wait("http://others.weir.test/", "404", |answer| {
        number(answer, "status") == 404
    })?;
    let describe = |name: &str| cluster.kubectl(&["-n", &front.namespace, "describe", "ingress", name]);
    let told = clock::wait_until(Duration::from_secs(30), || {
        describe("broken").is_ok_and(|text| text.contains("missing") && text.contains("weir-ingress"))
    });
    ensure!(told, "{}", describe("broken")?);
    let others = describe("others")?;
    ensure!(
        others.contains("Events:  ") && others.contains("<none>"),
        "{others}"
    );
    cluster.kubectl(&["delete", "ingressclass", "other"])?;
    Ok(())
}

#[test]
fn it_may_do_what_it_does_and_no_more() -> Result<()> {
    let Some(cluster) = Cluster::find()? else {
        return Ok(());
    };
    let user = "--as=system:serviceaccount:kube-system:weir-ingress";
    for (may, words) in [
        (true, "list ingresses -A"),
        (true, "watch ingressclasses"),
        (true, "watch endpointslices.discovery.k8s.io -A"),
        (true, "list services -A"),
        (true, "get secrets -n default"),
        (true, "watch nodes"),
        (false, "patch nodes"),
        (true, "patch ingresses --subresource=status -n default"),
        (true, "create events.events.k8s.io -n default"),
        (true, "create leases.coordination.k8s.io -n kube-system"),
        (
            true,
            "update leases.coordination.k8s.io/weir-ingress -n kube-system",
        ),
        (
            false,
            "update leases.coordination.k8s.io/kube-scheduler -n kube-system",
        ),
        (false, "create leases.coordination.k8s.io -n default"),
        (false, "patch ingresses -n default"),
        (false, "delete ingresses -n default"),
        (false, "update secrets -n default"),
        (false, "create secrets -n default"),
        (false, "list pods -A"),
        (false, "get configmaps -n kube-system"),
        (false, "create pods -n kube-system"),
    ] {
        let mut args = vec!["auth", "can-i", user];
        args.extend(words.split(' '));
        let output = cluster.command(&args).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!((said.trim() == "yes") == may, "can it {words}? {said}");
    }
    let log = cluster.kubectl(&[
        "-n",
        "kube-system",
        "logs",
        "-l",
        "app.kubernetes.io/name=weir-ingress",
        "--tail=-1",
    ])?;
    let refused = log.lines().find(|line| line.to_lowercase().contains("forbidden"));
    ensure!(refused.is_none(), "{refused:?}");
    ensure!(log.contains("ready at"), "{log}");
    Ok(())
}

/// Runs `work` under load, which must not notice; what came of the four loads, in their order.
fn under_load(front: &Front, work: impl FnOnce(std::time::Instant) -> Result<()>) -> Result<Vec<Report>> {
    let begun = clock::now();
    let loads = LOADS.map(|(url, speech, rate, reuse)| front.load(url, speech, rate, reuse));
    let loads = loads.into_iter().collect::<Result<Vec<_>>>()?;
    // All of them are at work before anything changes.
    std::thread::sleep(Duration::from_secs(2));
    let done = work(begun);
    std::thread::sleep(Duration::from_secs(2));
    let reports: Result<Vec<_>> = loads.into_iter().map(Requests::finish_without_loss).collect();
    done?;
    let reports = reports?;
    fast_enough(
        "requests",
        reports.iter().map(|report| (report.ok, report.elapsed_ms)),
    )?;
    Ok(reports)
}
