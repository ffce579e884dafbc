//! Which servers are known, in which order, and by which name each is verified.

use prometheus::Registry;
use serde_json::json;

use super::*;

fn servers(named: &[&str], last_resort: bool) -> Servers {
    let template = Config::new("https://10.96.0.1".parse().unwrap());
    let named: Vec<Uri> = named.iter().map(|url| url.parse().unwrap()).collect();
    let metrics = Arc::new(Metrics::new(&Registry::new()).unwrap());
    Servers::new(template, &named, last_resort, 1, metrics).unwrap()
}

fn slice(name: &str, namespace: &str, addresses: &[&str]) -> Object {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|address| json!({"addresses": [address]}))
        .collect();
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "endpoints": endpoints, "ports": [{"name": "metrics", "port": 9}, {"name": "https", "port": 6443}],
    });
    Object::from_value(object).unwrap().unwrap()
}

fn current(servers: &Servers) -> String {
    servers.state().host().to_owned()
}

#[tokio::test]
async fn a_cluster_ip_comes_last_once_addresses_are_told() {
    let servers = servers(&[], true);
    assert_eq!(servers.describe(), "10.96.0.1:443");
    servers.learn(&[Change::Put(slice(
        "kubernetes",
        "default",
        &["192.0.2.8", "192.0.2.7"],
    ))]);
    assert_eq!(
        servers.describe(),
        "192.0.2.7:6443, 192.0.2.8:6443, 10.96.0.1:443"
    );
    assert_eq!(
        current(&servers),
        "10.96.0.1:443",
        "it works: no reason to leave it"
    );
    servers.learn(&[Change::Put(slice("kubernetes", "other", &["192.0.2.9"]))]);
    assert!(
        !servers.describe().contains("192.0.2.9"),
        "only the one in default"
    );
}

#[tokio::test]
async fn named_servers_stay_in_front() {
    let servers = servers(&["https://192.0.2.1:6443", "https://api.example.org"], false);
    assert_eq!(current(&servers), "api.example.org:443", "its turn");
    let told = slice("kubernetes", "default", &["192.0.2.1", "192.0.2.2", "fd00::1"]);
    servers.learn(&[Change::Replace(Kind::EndpointSlice, vec![told])]);
    let all = "192.0.2.1:6443, api.example.org:443, 192.0.2.2:6443, [fd00::1]:6443";
    assert_eq!(servers.describe(), all);
    assert_eq!(current(&servers), "api.example.org:443");
}

#[tokio::test]
async fn what_was_told_last_stays_until_something_else_is_told() {
    let servers = servers(&["https://192.0.2.1:6443"], false);
    servers.learn(&[Change::Put(slice("kubernetes", "default", &["192.0.2.2"]))]);
    assert!(servers.state().make_current("192.0.2.2:6443"));
    let name = ObjectName::new("default", "kubernetes");
    servers.learn(&[Change::Delete(Kind::EndpointSlice, name)]);
    assert_eq!(servers.describe(), "192.0.2.1:6443, 192.0.2.2:6443");
    servers.learn(&[Change::Put(slice("kubernetes", "default", &["192.0.2.3"]))]);
    assert_eq!(servers.describe(), "192.0.2.1:6443, 192.0.2.3:6443");
    assert_eq!(current(&servers), "192.0.2.1:6443", "the one before is gone");
}

#[test]
fn addresses_are_verified_by_the_name_that_every_certificate_has() {
    let template = Config::new("https://10.96.0.1".parse().unwrap());
    let verified = |template: &Config, url: &str| at(template, &url.parse().unwrap()).tls_server_name;
    assert_eq!(
        verified(&template, "https://192.0.2.1:6443").as_deref(),
        Some(NAME)
    );
    assert_eq!(
        verified(&template, "https://[fd00::1]:6443").as_deref(),
        Some(NAME)
    );
    assert_eq!(verified(&template, "https://api.example.org"), None);
    let mut own = template;
    own.tls_server_name = Some("mine".to_owned());
    assert_eq!(verified(&own, "https://192.0.2.1").as_deref(), Some("mine"));
}

#[tokio::test]
async fn an_error_names_every_address_that_was_asked() {
    // Nobody listens at port 1.
    let named = ["http://127.0.0.1:1", "http://127.0.0.2:1"];
    let request = Request::get("/api").body(Body::empty()).unwrap();
    let error = servers(&named, false)
        .send(request)
        .await
        .unwrap_err()
        .to_string();
    for address in ["127.0.0.1:1: ", "127.0.0.2:1: "] {
        assert!(error.contains(address), "{error}");
    }
}
