//! A folder of manifests: ordinary Service, EndpointSlice and Node YAML, as people write it.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::Node;

/// A folder that `weir agent --manifests` watches.
#[derive(Clone, Debug)]
pub struct Manifests {
    dir: PathBuf,
}

impl Manifests {
    /// Uses the folder, making it if need be.
    pub fn new(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes documents into a file, replacing it in one step: a reader sees the old file or the new one.
    pub fn write<D: AsRef<str>>(&self, file: &str, documents: &[D]) -> Result<()> {
        let documents: Vec<&str> = documents.iter().map(AsRef::as_ref).collect();
        let path = self.dir.join(file);
        // No manifest by its name, so that the watcher does not read it half-written.
        let temporary = self.dir.join(format!(".{file}.new"));
        fs::write(&temporary, documents.join("---\n"))
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Removes a file.
    pub fn remove(&self, file: &str) -> Result<()> {
        let path = self.dir.join(file);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }
}

/// A port of a Service and of its EndpointSlices.
#[derive(Clone, Debug)]
pub struct Port {
    /// The port's name.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
    /// The Service's port.
    pub port: u16,
    /// The endpoints' port.
    pub target: u16,
    /// The node port of a Service of type `NodePort`.
    pub node_port: Option<u16>,
}

impl Port {
    /// A TCP port.
    pub fn tcp(name: &str, port: u16, target: u16) -> Self {
        Self {
            name: name.to_owned(),
            protocol: "TCP",
            port,
            target,
            node_port: None,
        }
    }

    /// A UDP port.
    pub fn udp(name: &str, port: u16, target: u16) -> Self {
        Self {
            protocol: "UDP",
            ..Self::tcp(name, port, target)
        }
    }

    /// An SCTP port.
    pub fn sctp(name: &str, port: u16, target: u16) -> Self {
        Self {
            protocol: "SCTP",
            ..Self::tcp(name, port, target)
        }
    }

    /// The same with a node port.
    #[must_use]
    pub fn node_port(self, node_port: u16) -> Self {
        Self {
            node_port: Some(node_port),
            ..self
        }
    }
}

/// A Service. Give it its `uid` and times by [`Service::metadata`] where a test needs them.
#[derive(Clone, Debug)]
pub struct Service {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `spec.clusterIPs`.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.ports`.
    pub ports: Vec<Port>,
    /// Further lines for `spec`, such as `externalTrafficPolicy: Local`.
    pub spec: Vec<String>,
    /// Further lines for `metadata`, such as `uid: 1`.
    pub metadata: Vec<String>,
}

impl Service {
    /// A Service in the namespace `default`.
    pub fn new(name: &str, cluster_ips: &[IpAddr], ports: &[Port]) -> Self {
        Self {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            cluster_ips: cluster_ips.to_vec(),
            ports: ports.to_vec(),
            spec: Vec::new(),
            metadata: Vec::new(),
        }
    }

    /// The same with one more line in `spec`.
    #[must_use]
    pub fn spec(mut self, line: &str) -> Self {
        self.spec.push(line.to_owned());
        self
    }

    /// The same with one more line in `metadata`.
    #[must_use]
    pub fn metadata(mut self, line: &str) -> Self {
        self.metadata.push(line.to_owned());
        self
    }

    /// The document.
    pub fn to_yaml(&self) -> String {
        let mut yaml = head("v1", "Service", &self.namespace, &self.name);
        push_lines(&mut yaml, &self.metadata);
        yaml.push_str("spec:\n");
        let kind = if self.ports.iter().any(|port| port.node_port.is_some()) {
            "NodePort"
        } else {
            "ClusterIP"
        };
        let _ = writeln!(yaml, "  type: {kind}");
        if let Some(first) = self.cluster_ips.first() {
            let _ = writeln!(yaml, "  clusterIP: {}", quoted(*first));
            yaml.push_str("  clusterIPs:\n");
        }
        for address in &self.cluster_ips {
            let _ = writeln!(yaml, "    - {}", quoted(*address));
        }
        let families = [
            ("IPv4", self.cluster_ips.iter().any(IpAddr::is_ipv4)),
            ("IPv6", self.cluster_ips.iter().any(IpAddr::is_ipv6)),
        ];
        let names: Vec<_> = families
            .iter()
            .filter(|(_, has)| *has)
            .map(|(name, _)| *name)
            .collect();
        let _ = writeln!(yaml, "  ipFamilies: [{}]", names.join(", "));
        push_lines(&mut yaml, &self.spec);
        yaml.push_str("  ports:\n");
        for port in &self.ports {
            let _ = writeln!(
                yaml,
                "    - name: {}\n      protocol: {}\n      port: {}\n      targetPort: {}",
                port.name, port.protocol, port.port, port.target
            );
            if let Some(node_port) = port.node_port {
                let _ = writeln!(yaml, "      nodePort: {node_port}");
            }
        }
        yaml
    }

    /// The `EndpointSlices` of this Service for these endpoints, one document per family that has any.
    pub fn slices(&self, endpoints: &[Endpoint]) -> Vec<String> {
        let slice = |family: &str, wanted: fn(&IpAddr) -> bool| {
            let endpoints: Vec<_> = endpoints
                .iter()
                .filter(|endpoint| wanted(&endpoint.address))
                .collect();
            (!endpoints.is_empty()).then(|| self.slice(family, &endpoints))
        };
        [slice("IPv4", IpAddr::is_ipv4), slice("IPv6", IpAddr::is_ipv6)]
            .into_iter()
            .flatten()
            .collect()
    }

    fn slice(&self, family: &str, endpoints: &[&Endpoint]) -> String {
        let name = format!("{}-{}", self.name, family.to_lowercase());
        let mut yaml = head("discovery.k8s.io/v1", "EndpointSlice", &self.namespace, &name);
        let _ = writeln!(
            yaml,
            "  labels:\n    kubernetes.io/service-name: {}\naddressType: {family}\nports:",
            self.name
        );
        for port in &self.ports {
            let _ = writeln!(
                yaml,
                "  - name: {}\n    protocol: {}\n    port: {}",
                port.name, port.protocol, port.target
            );
        }
        yaml.push_str("endpoints:\n");
        for endpoint in endpoints {
            let _ = writeln!(
                yaml,
                "  - addresses: [{}]\n    nodeName: {}\n    conditions: {{ ready: {}, serving: {}, terminating: {} }}",
                quoted(endpoint.address),
                endpoint.node,
                endpoint.ready,
                endpoint.serving,
                endpoint.terminating
            );
            if let Some(node) = &endpoint.for_node {
                let _ = writeln!(yaml, "    hints: {{ forNodes: [{{ name: {node} }}] }}");
            }
        }
        yaml
    }
}

/// One address of an `EndpointSlice`.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// The node that it is on.
    pub node: String,
    /// `conditions.ready`.
    pub ready: bool,
    /// `conditions.serving`.
    pub serving: bool,
    /// `conditions.terminating`.
    pub terminating: bool,
    /// The one node of `hints.forNodes`.
    pub for_node: Option<String>,
}

impl Endpoint {
    /// A ready endpoint.
    pub fn new(address: impl Into<IpAddr>, node: &str) -> Self {
        Self {
            address: address.into(),
            node: node.to_owned(),
            ready: true,
            serving: true,
            terminating: false,
            for_node: None,
        }
    }
}

/// The Node object of a node of the lab.
pub fn node_yaml(node: &Node) -> String {
    let mut yaml = format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {}\nstatus:\n  addresses:\n",
        node.name()
    );
    for address in node.addresses() {
        let _ = writeln!(yaml, "    - type: InternalIP\n      address: {}", quoted(address));
    }
    let _ = writeln!(yaml, "    - type: Hostname\n      address: {}", node.name());
    yaml
}

fn head(version: &str, kind: &str, namespace: &str, name: &str) -> String {
    format!("apiVersion: {version}\nkind: {kind}\nmetadata:\n  namespace: {namespace}\n  name: {name}\n")
}

fn push_lines(yaml: &mut String, lines: &[String]) {
    for line in lines {
        let _ = writeln!(yaml, "  {line}");
    }
}

/// YAML takes a colon for the end of a key in some places, so IPv6 addresses are quoted.
fn quoted(address: IpAddr) -> String {
    if address.is_ipv6() {
        format!("\"{address}\"")
    } else {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_reads_as_people_write_it() {
        let ips = ["10.96.0.10".parse().unwrap(), "fd00:10:96::10".parse().unwrap()];
        let web = Service::new("web", &ips, &[Port::tcp("http", 80, 8080).node_port(30080)]);
        assert_eq!(
            web.to_yaml(),
            "apiVersion: v1\nkind: Service\nmetadata:\n  namespace: default\n  name: web\nspec:\n  type: NodePort\n  \
             clusterIP: 10.96.0.10\n  clusterIPs:\n    - 10.96.0.10\n    - \"fd00:10:96::10\"\n  \
             ipFamilies: [IPv4, IPv6]\n  ports:\n    - name: http\n      protocol: TCP\n      port: 80\n      \
             targetPort: 8080\n      nodePort: 30080\n"
        );
        let endpoint = Endpoint::new("10.244.1.2".parse::<IpAddr>().unwrap(), "n1");
        let slices = web.slices(&[endpoint]);
        assert_eq!(slices.len(), 1, "no IPv6 endpoint, no IPv6 slice");
        assert!(slices[0].contains("addresses: [10.244.1.2]\n    nodeName: n1\n"));
    }
}
