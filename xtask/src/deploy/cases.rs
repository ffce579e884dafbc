//! Each value of the chart, where it must show, and that it does.

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::chart::Chart;

/// Each value of the chart changes what it says it does.
pub(super) fn every_value_arrives(chart: &Chart) -> Result<()> {
    let cases = cases();
    let given: Vec<_> = cases.iter().map(|case| case.given.clone()).collect();
    for (case, rendered) in cases.iter().zip(chart.render(&given)?) {
        let Case {
            given,
            object,
            pointer,
            shows,
        } = case;
        let found = rendered.at(object, pointer).unwrap_or(&Value::Null);
        if found != shows {
            bail!("the chart with {given}: {pointer} of {object} is {found}, and {shows} is expected");
        }
    }
    let mut untried = chart.leaves();
    untried.retain(|leaf| given.iter().all(|given| given.pointer(leaf).is_none()));
    ensure!(
        untried.is_empty(),
        "no case in xtask/src/deploy/cases.rs tries these values: {untried:?}"
    );
    Ok(())
}

/// A value, and where it must show.
struct Case {
    given: Value,
    object: String,
    pointer: String,
    shows: Value,
}

fn case(object: &str, pointer: &str, given: Value, shows: Value) -> Case {
    Case {
        given,
        object: object.to_owned(),
        pointer: pointer.to_owned(),
        shows,
    }
}

/// One for each value; texts that YAML would take for something else among them.
fn cases() -> Vec<Case> {
    let mut all = agent_cases();
    let file =
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: \"nftables\"\n";
    let host = |host, port| json!({"apiServer": {"host": host, "port": port}});
    let settings = [
        ("apiServerHost", host("::1", 1), "::1"),
        ("apiServerPort", host("a", 443), "443"),
        (
            "config.conf",
            json!({"config": {"kubeProxy": {"mode": "nftables"}}}),
            file,
        ),
    ];
    all.extend(settings.map(|(key, given, shows)| {
        let pointer = format!("/data/{key}");
        case("ConfigMap kube-system/weir", &pointer, given, json!(shows))
    }));
    let secret = json!({"image": {"pullSecrets": ["key"]}});
    all.push(case(
        "ServiceAccount kube-system/weir",
        "/imagePullSecrets/0/name",
        secret,
        json!("key"),
    ));
    all.extend(ingress_cases());
    all
}

/// What shows in the DaemonSet: the field there, the value, what the field then is.
fn agent_cases() -> Vec<Case> {
    let amounts = json!({"requests": {"cpu": "1", "memory": "1Gi"}});
    let name = json!({"repository": "a/b", "tag": "1"});
    let policy = "updateStrategy/rollingUpdate/maxUnavailable";
    let fields = [
        (policy, json!({"maxUnavailable": "10%"}), json!("10%")),
        (
            "template/spec/volumes/0/configMap/name",
            json!({"config": {"existingConfigMap": "mine"}}),
            json!("mine"),
        ),
        (
            "template/spec/containers/0/image",
            json!({"image": name}),
            json!("a/b:1"),
        ),
        (
            "template/spec/containers/0/imagePullPolicy",
            json!({"image": {"pullPolicy": "Never"}}),
            json!("Never"),
        ),
        (
            "template/spec/containers/0/args/3",
            json!({"extraArgs": ["--uplink=eth*"]}),
            json!("--uplink=eth*"),
        ),
        (
            "template/spec/containers/0/resources",
            json!({"resources": amounts}),
            amounts,
        ),
        (
            "template/spec/nodeSelector/weir",
            json!({"nodeSelector": {"weir": "true"}}),
            json!("true"),
        ),
        ("template/spec/tolerations", json!({"tolerations": []}), json!([])),
        (
            "template/spec/priorityClassName",
            json!({"priorityClassName": "mine"}),
            json!("mine"),
        ),
    ];
    fields
        .map(|(field, given, shows)| {
            case(
                "DaemonSet kube-system/weir",
                &format!("/spec/{field}"),
                given,
                shows,
            )
        })
        .into()
}

/// These values, of something that is wanted.
pub(super) fn enabled(mut values: Value) -> Value {
    if let Some(fields) = values.as_object_mut() {
        fields.insert("enabled".to_owned(), true.into());
    }
    values
}

/// What shows in the ingress's objects.
fn ingress_cases() -> Vec<Case> {
    let on = |values: Value| json!({"ingress": enabled(values)});
    let balanced = |field: &str, value: Value| on(json!({"kind": "Deployment", field: value}));
    let service = "Service kube-system/weir-ingress";
    let mut all = vec![
        case(
            "Deployment kube-system/weir-ingress",
            "/spec/replicas",
            balanced("replicas", json!(5)),
            json!(5),
        ),
        case(
            service,
            "/metadata/annotations/a",
            balanced("serviceAnnotations", json!({"a": "1"})),
            json!("1"),
        ),
        case(
            service,
            "/spec/externalTrafficPolicy",
            balanced("externalTrafficPolicy", json!("Cluster")),
            json!("Cluster"),
        ),
        case(
            "IngressClass mine",
            "/spec/controller",
            on(json!({"className": "mine"})),
            json!("weir.network/ingress"),
        ),
        case(
            "IngressClass weir",
            "/metadata/annotations/ingressclass.kubernetes.io~1is-default-class",
            on(json!({"defaultClass": true})),
            json!("true"),
        ),
        case(
            "Role b/weir-ingress",
            "/rules/4/resources/0",
            on(json!({"namespaces": ["a", "b"]})),
            json!("secrets"),
        ),
    ];
    all.extend(ingress_pod_cases().map(|(field, given, shows)| {
        let pointer = format!("/spec/template/spec/{field}");
        case("DaemonSet kube-system/weir-ingress", &pointer, on(given), shows)
    }));
    all
}

/// What shows in its pods.
fn ingress_pod_cases() -> [(&'static str, Value, Value); 8] {
    let amounts = json!({"limits": {"memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}});
    let taint = json!([{"operator": "Exists"}]);
    [
        (
            "containers/0/image",
            json!({"repository": "a/b"}),
            json!("a/b:dev"),
        ),
        (
            "containers/0/args/5",
            json!({"namespaces": ["a", "b"]}),
            json!("--namespace=b"),
        ),
        (
            "containers/0/args/4",
            json!({"extraArgs": ["--log=debug"]}),
            json!("--log=debug"),
        ),
        ("containers/0/resources", json!({"resources": amounts}), amounts),
        (
            "terminationGracePeriodSeconds",
            json!({"terminationGracePeriodSeconds": 30}),
            json!(30),
        ),
        (
            "nodeSelector/edge",
            json!({"nodeSelector": {"edge": "true"}}),
            json!("true"),
        ),
        ("tolerations", json!({"tolerations": taint}), taint),
        (
            "priorityClassName",
            json!({"priorityClassName": "mine"}),
            json!("mine"),
        ),
    ]
}
