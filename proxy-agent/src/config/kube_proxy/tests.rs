//! What kubeadm writes, what people write, and what is wrong.

use super::*;

/// As `kubeadm init` 1.36 writes it into the ConfigMap `kube-system/kube-proxy`.
const KUBEADM: &str = include_str!("kubeadm.yaml");

fn parse(fields: &str) -> Result<KubeProxyConfiguration, Mistake> {
    KubeProxyConfiguration::parse(&format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{fields}"))
}

#[test]
fn the_file_of_kubeadm_says_where_the_api_server_is_and_little_else() {
    let found = KubeProxyConfiguration::parse(KUBEADM).unwrap();
    let expected = KubeProxyConfiguration {
        kubeconfig: Some("/var/lib/kube-proxy/kubeconfig.conf".into()),
        bind_address: Some("0.0.0.0".parse().unwrap()),
        masquerade: MasqueradeFields {
            masquerade_all: Some(false),
            cluster_cidr: Some("10.244.0.0/16,fd00:10:244::/56".to_owned()),
            ..MasqueradeFields::default()
        },
        ..KubeProxyConfiguration::default()
    };
    assert_eq!(found, expected);
    assert_eq!(found.warning(Path::new("/config.conf")), None);
}

/// Sets every text that says nothing.
fn fill(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(fill),
        Value::String(text) if says_nothing(&Value::from(text.as_str())) => "1".clone_into(text),
        _ => {}
    }
}

#[test]
fn every_field_of_the_file_of_kubeadm_is_known() {
    let mut root: Value = serde_saphyr::from_str(KUBEADM).unwrap();
    fill(&mut root);
    let mut found = KubeProxyConfiguration::default();
    found.sort_fields("", &root).unwrap();
    assert_eq!(found.unknown, Vec::<String>::new());
    assert!(found.without_meaning.len() > 15, "{:?}", found.without_meaning);
}

#[test]
fn what_people_set_is_used_or_named() {
    let found = parse(
        "mode: ipvs\nipvs: {scheduler: rr, strictARP: true, tcpTimeout: 0s}\nfeatureGates: {Any: true}\n\
         conntrack: {maxPerCore: 0, min: 131072}\nbindAddress: '::'\nhealthzBindAddress: '[::]:10256'\n\
         healthzBindAddresses: 0.0.0.0\nlinux: {masqueradeAll: true}\nnodePortAddresses: [10.0.0.0/8]\n",
    );
    let found = found.unwrap();
    let in_vain = [
        "conntrack.min",
        "featureGates",
        "ipvs.scheduler",
        "ipvs.strictARP",
        "mode",
    ];
    assert_eq!(found.without_meaning, in_vain);
    assert_eq!(found.unknown, ["healthzBindAddresses", "linux"]);
    assert_eq!(found.healthz_bind_address, Some("[::]:10256".parse().unwrap()));
    assert_eq!(
        found.node_port_addresses,
        NodePortAddresses::parse(&["10.0.0.0/8"]).ok()
    );
    let warning = found.warning(Path::new("f")).unwrap();
    assert!(
        warning.contains("; not known to weir: healthzBindAddresses, linux)"),
        "{warning}"
    );
    assert!(!warning.contains('\n'));
    let elsewhere = parse("bindAddress: 192.0.2.1").unwrap();
    assert_eq!(elsewhere.without_meaning, ["bindAddress"]);
}

#[test]
fn mistakes_are_named_with_their_field() {
    let table = [
        ("healthzBindAddress: 10256", "healthzBindAddress must be a text"),
        (
            "healthzBindAddress: localhost:1",
            "healthzBindAddress is \"localhost:1\", which is no address: write ADDRESS:PORT, such as 0.0.0.0:10256",
        ),
        (
            "metricsBindAddress: xyz",
            "metricsBindAddress is \"xyz\", which is no address: write ADDRESS:PORT, such as 127.0.0.1:10249",
        ),
        (
            "bindAddress: xyz",
            "bindAddress is \"xyz\", which is no address: write ADDRESS, such as 0.0.0.0 or ::",
        ),
        ("conntrack: 5", "conntrack must be a group of fields, and is 5"),
        (
            "conntrack: {min: many}",
            "conntrack.min must be a number, and is \"many\"",
        ),
        (
            "nodePortAddresses: 10.0.0.0/8",
            "nodePortAddresses must be a list of texts",
        ),
        (
            "nodePortAddresses: [eth0]",
            "nodePortAddresses: \"eth0\" is not a range",
        ),
        (
            "featureGates: {AllowServiceExternalIPs: \"no\"}",
            "featureGates.AllowServiceExternalIPs must be ",
        ),
        ("mode: {}", "mode must be a text"),
        ("mode: a: b", "it is no YAML: "),
        ("mode: [", "it is no YAML: "),
    ];
    for (fields, expected) in table {
        let mistake = parse(fields).unwrap_err().to_string();
        assert!(mistake.contains(expected), "{fields}: {mistake}");
        assert!(!mistake.contains('\n'), "{mistake}");
    }
}

#[test]
fn another_object_is_turned_away() {
    let table = [
        ("", "the document must be a group of fields"),
        (
            "kind: KubeProxyConfiguration",
            "apiVersion is not there, and weir reads kubeproxy.config.k8s.io/v1alpha1",
        ),
        (
            "kind: KubeProxyConfiguration\napiVersion: kubeproxy.config.k8s.io/v1alpha2",
            "apiVersion is \"kubeproxy.config.k8s.io/v1alpha2\"",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\ndata: {}",
            "kind is \"ConfigMap\", and weir reads KubeProxyConfiguration: write the text under its key config.conf",
        ),
    ];
    for (text, expected) in table {
        let mistake = KubeProxyConfiguration::parse(text).unwrap_err().to_string();
        assert!(mistake.contains(expected), "{text}: {mistake}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = KubeProxyConfiguration::read(Path::new("/nowhere/config.conf")).unwrap_err();
    let told = crate::error::chain(&error);
    assert!(
        told.starts_with(
            "cannot read /nowhere/config.conf: check the file given with --config: No such file"
        ),
        "{told}"
    );
}
