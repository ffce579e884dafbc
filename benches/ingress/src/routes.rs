//! The routes, in the words of each proxy.
//!
//! Every ten paths are a host and an Ingress of its own, with a Service of its own; all Services have the same endpoint.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use weir_lab::manifest::{Endpoint, Port, Service};

/// The port that all Services lead to.
pub(crate) const BACKEND_PORT: u16 = 8080;
/// The host whose path changes.
pub(crate) const CHANGING: &str = "changing.bench.example";
/// Paths of a host.
const PATHS: usize = 10;

/// So many routes to one endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Routes {
    pub(crate) count: usize,
    pub(crate) backend: Ipv4Addr,
}

impl Routes {
    /// Host and path of a route.
    pub(crate) fn route(self, at: usize) -> (String, String) {
        let at = at % self.count;
        (host(at / PATHS), format!("/p{}/1k", at % PATHS))
    }

    fn hosts(self) -> usize {
        self.count.div_ceil(PATHS)
    }

    /// The numbers of a host's paths.
    fn paths(self, host: usize) -> std::ops::Range<usize> {
        0..PATHS.min(self.count - host * PATHS)
    }

    /// The files of manifests: one for each host, as they would be written by their owners.
    pub(crate) fn manifests(self) -> Vec<(String, Vec<String>)> {
        (0..self.hosts())
            .map(|at| {
                let cluster_ip =
                    Ipv4Addr::from_bits(u32::from_be_bytes([10, 96, 0, 1]) + u32::try_from(at).unwrap_or(0));
                let name = format!("s{at}");
                let service = Service::new(
                    &name,
                    &[cluster_ip.into()],
                    &[Port::tcp("http", 80, BACKEND_PORT)],
                );
                let paths: Vec<String> = self.paths(at).map(|path| format!("/p{path}/")).collect();
                let mut documents = vec![service.to_yaml(), ingress(&name, &host(at), &paths, &name)];
                documents.extend(service.slices(&[Endpoint::new(self.backend, "n1")]));
                (format!("s{at}.yaml"), documents)
            })
            .collect()
    }

    /// HAProxy's map from host and path to backend; the last line is the path that changes.
    pub(crate) fn map(self, version: usize) -> String {
        let mut map = String::new();
        for at in 0..self.hosts() {
            for path in self.paths(at) {
                let _ = writeln!(map, "{}/p{path}/ s{at}", host(at));
            }
        }
        let _ = writeln!(map, "{} s0", changing_key(version));
        map
    }

    /// HAProxy's backends.
    pub(crate) fn backends(self) -> String {
        let mut text = String::new();
        for at in 0..self.hosts() {
            let _ = writeln!(
                text,
                "backend s{at}\n    server e0 {}:{BACKEND_PORT}\n",
                self.backend
            );
        }
        text
    }

    /// nginx's upstreams and servers.
    pub(crate) fn servers(self) -> String {
        let mut text = String::new();
        for at in 0..self.hosts() {
            let _ = writeln!(
                text,
                "upstream s{at} {{\n    server {}:{BACKEND_PORT};\n    keepalive 64;\n    keepalive_requests 1000000000;\n}}",
                self.backend
            );
            let paths: Vec<String> = self.paths(at).map(|path| format!("/p{path}/")).collect();
            text.push_str(&server(&host(at), &paths, &format!("s{at}")));
        }
        text
    }
}

/// The Ingress that changes.
pub(crate) fn changing_manifest(version: usize) -> String {
    ingress("changing", CHANGING, &[changing_path(version)], "s0")
}

/// nginx's server that changes.
pub(crate) fn changing_server(version: usize) -> String {
    server(CHANGING, &[changing_path(version)], "s0")
}

/// The key in HAProxy's map that changes.
pub(crate) fn changing_key(version: usize) -> String {
    format!("{CHANGING}{}", changing_path(version))
}

/// The path that is there in this version, and in no other.
pub(crate) fn changing_path(version: usize) -> String {
    format!("/v{version}/")
}

fn host(at: usize) -> String {
    format!("h{at}.bench.example")
}

fn server(host: &str, paths: &[String], upstream: &str) -> String {
    let mut text = format!("server {{\n    listen 80;\n    listen 443 ssl http2;\n    server_name {host};\n");
    for path in paths {
        let _ = writeln!(text, "    location {path} {{ proxy_pass http://{upstream}; }}");
    }
    text.push_str("    location / { return 404; }\n}\n");
    text
}

fn ingress(name: &str, host: &str, paths: &[String], service: &str) -> String {
    let mut yaml = format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  namespace: default\n  name: {name}\n\
         spec:\n  ingressClassName: weir\n  rules:\n    - host: {host}\n      http:\n        paths:\n"
    );
    for path in paths {
        let _ = writeln!(
            yaml,
            "          - path: {path}\n            pathType: Prefix\n            backend:\n              \
             service: {{ name: {service}, port: {{ number: 80 }} }}"
        );
    }
    yaml
}

/// The IngressClass, and the Secret that clients are shown.
pub(crate) fn common_manifests(certificate: &str, key: &str) -> Vec<String> {
    let class = "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata:\n  name: weir\n\
                 spec:\n  controller: weir.network/ingress\n";
    let block = |text: &str| {
        text.lines()
            .fold(String::new(), |all, line| all + "    " + line + "\n")
    };
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  namespace: default\n  name: tls\ntype: kubernetes.io/tls\n\
         stringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        block(certificate),
        block(key)
    );
    vec![class.to_owned(), secret]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(count: usize) -> Routes {
        let backend = Ipv4Addr::new(10, 244, 1, 3);
        Routes { count, backend }
    }

    #[test]
    fn all_proxies_are_told_the_same_routes() {
        for count in [1, 10, 23] {
            let routes = routes(count);
            let manifests = routes.manifests();
            let text: String = manifests
                .iter()
                .flat_map(|(_, documents)| documents.clone())
                .collect();
            assert_eq!(text.matches("- path: /p").count(), count);
            assert_eq!(routes.servers().matches("location /p").count(), count);
            assert_eq!(routes.map(0).lines().count(), count + 1);
            let hosts = count.div_ceil(10);
            assert_eq!(manifests.len(), hosts);
            assert_eq!(routes.backends().matches("backend s").count(), hosts);
            for at in 0..count {
                let (host, path) = routes.route(at);
                let key = format!("{host}{} ", path.strip_suffix("1k").unwrap());
                assert!(routes.map(0).contains(&key), "{key}");
            }
        }
    }

    #[test]
    fn a_version_has_its_own_path() {
        assert!(routes(1).map(7).ends_with("changing.bench.example/v7/ s0\n"));
        assert!(changing_manifest(7).contains("path: /v7/\n"));
        assert!(changing_server(7).contains("location /v7/ {"));
    }
}
