//! Health checks and Events, as load balancers and users see them in a cluster.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cluster_test::{Cluster, Web};
use serde_json::Value;
use weir_lab::clock;

/// How long a change may take.
const WITHIN: Duration = Duration::from_secs(30);

/// A Service of type `LoadBalancer` beside `web`, for its pods on one node only.
const BALANCED: &str = r"apiVersion: v1
kind: Service
metadata:
  namespace: NAMESPACE
  name: balanced
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  ipFamilyPolicy: RequireDualStack
  selector:
    app: web
  ports:
    - name: http
      port: 80
      targetPort: 8080
";

/// Waits until `look` gives something.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = clock::now() + WITHIN;
    loop {
        let seen = look();
        if let Ok(Some(found)) = seen {
            return Ok(found);
        }
        if clock::now() > deadline {
            seen.with_context(|| what.to_owned())?;
            bail!("{what}: not within {WITHIN:?}");
        }
        sleep(Duration::from_millis(200));
    }
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn field(cluster: &Cluster, web: &Web, path: &str) -> Result<String> {
    let path = format!("jsonpath={{{path}}}");
    cluster.kubectl(&["-n", &web.namespace, "get", "service", "balanced", "-o", &path])
}

/// How many endpoints of the Service are ready on a node, by its pods.
fn pods_on(cluster: &Cluster, web: &Web, node: &str) -> Result<usize> {
    let on = format!("spec.nodeName={node}");
    let path = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
    let ready = cluster.kubectl(&[
        "-n",
        &web.namespace,
        "get",
        "pods",
        "-l",
        "app=web",
        "--field-selector",
        &on,
        "-o",
        path,
    ])?;
    Ok(ready.split_whitespace().filter(|word| *word == "True").count())
}

#[test]
fn load_balancers_are_told_of_each_nodes_own_endpoints() -> Result<()> {
    let Some(cluster) = Cluster::find()? else {
        return Ok(());
    };
    let web = Web::deploy(&cluster, "health-checks")?;
    cluster.apply(&BALANCED.replace("NAMESPACE", &web.namespace))?;
    cluster.kubectl(&[
        "-n",
        &web.namespace,
        "patch",
        "service",
        "balanced",
        "--subresource=status",
        "--type=merge",
        "-p",
        r#"{"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.80"}]}}}"#,
    ])?;
    let port: u16 = field(&cluster, &web, ".spec.healthCheckNodePort")?.parse()?;
    agree(&cluster, &web, port)?;
    // With the last pod the answer changes, everywhere.
    cluster.kubectl(&["-n", &web.namespace, "scale", "deployment/web", "--replicas=0"])?;
    wait_for("the pods go", || {
        let pods = cluster.kubectl(&["-n", &web.namespace, "get", "pods", "-l", "app=web", "-o", "name"])?;
        Ok(pods.is_empty().then_some(()))
    })?;
    agree(&cluster, &web, port)?;
    // Nobody listens once the Service is gone.
    cluster.kubectl(&["-n", &web.namespace, "delete", "service", "balanced"])?;
    for node in &cluster.nodes {
        for address in &node.addresses {
            wait_for("the port closes", || {
                Ok(cluster.ask(address, port, "/").is_err().then_some(()))
            })?;
        }
    }
    Ok(())
}

/// Every node tells what its pods are, in both families.
fn agree(cluster: &Cluster, web: &Web, port: u16) -> Result<()> {
    for node in &cluster.nodes {
        let count = pods_on(cluster, web, &node.name)?;
        let code = if count > 0 { 200 } else { 503 };
        for address in &node.addresses {
            let what = format!("{} at {address}: {count} endpoints", node.name);
            let (head, body) = wait_for(&what, || {
                let (head, body) = cluster.ask(address, port, "/")?;
                let weight = format!("x-load-balancing-endpoint-weight: {count}\r\n");
                Ok((head + "\r\n", body)).map(|(head, body)| head.contains(&weight).then_some((head, body)))
            })?;
            ensure!(head.starts_with(&format!("HTTP/1.1 {code} ")), "{head}");
            let told: Value = serde_json::from_str(&body)?;
            ensure!(
                told.pointer("/localEndpoints").and_then(Value::as_u64) == Some(u64::try_from(count)?),
                "{body}"
            );
            ensure!(
                text(&told, "/service/name") == "balanced"
                    && told.pointer("/serviceProxyHealthy") == Some(&Value::Bool(true)),
                "{body}"
            );
        }
    }
    Ok(())
}

#[test]
fn what_cannot_be_served_is_an_event() -> Result<()> {
    let Some(cluster) = Cluster::find()? else {
        return Ok(());
    };
    let web = Web::deploy(&cluster, "health-events")?;
    // An endpoint that nobody may be sent to.
    let slice = r#"{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "NAMESPACE", "name": "odd", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": ["255.255.255.255"]}], "ports": [{"name": "http", "port": 8080}]}"#;
    cluster.apply(&slice.replace("NAMESPACE", &web.namespace))?;
    let events = || -> Result<Vec<Value>> {
        let text = cluster.kubectl(&[
            "-n",
            &web.namespace,
            "get",
            "events.events.k8s.io",
            "--field-selector",
            "reason=NotServed",
            "-o",
            "json",
        ])?;
        let list: Value = serde_json::from_str(&text)?;
        Ok(list
            .pointer("/items")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default())
    };
    let event = wait_for("an Event", || Ok(events()?.pop()))?;
    ensure!(
        text(&event, "/regarding/name") == "odd" && text(&event, "/reportingController") == "weir",
        "{event}"
    );
    let uid = cluster.kubectl(&[
        "-n",
        &web.namespace,
        "get",
        "endpointslice",
        "odd",
        "-o",
        "jsonpath={.metadata.uid}",
    ])?;
    ensure!(text(&event, "/regarding/uid") == uid, "{event}");
    let note = text(&event, "/note");
    ensure!(
        note.contains("255.255.255.255") && note.contains("correct"),
        "{event}"
    );
    // New agents on every node: still one Event.
    cluster.restart("kube-system", "daemonset/weir")?;
    sleep(Duration::from_secs(5));
    let all = events()?;
    ensure!(all.len() == 1, "{all:?}");
    let shown = cluster.kubectl(&["-n", &web.namespace, "describe", "endpointslice", "odd"])?;
    ensure!(shown.contains("NotServed"), "{shown}");
    Ok(())
}
