//! A Service whose servers say their names, and clients that count them.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_lab::peer::Report;
use weir_lab::{clock, peer_binary};

use crate::Cluster;

/// Servers of the Service.
pub const SERVERS: u64 = 4;

/// How long news may take from a pod to the nodes, on a busy machine.
const PROPAGATION: Duration = Duration::from_secs(30);

/// Name of the image that `./x test cluster` brings to the nodes.
const IMAGE: &str = "registry.weir.test/lab-peer:dev";

/// A Service `web` in a namespace of its own, and a client pod on each node. Dropping it deletes the namespace.
pub struct Web<'a> {
    cluster: &'a Cluster,
    /// The namespace.
    pub namespace: String,
}

impl<'a> Web<'a> {
    /// Deploys it, and waits until it is ready.
    pub fn deploy(cluster: &'a Cluster, namespace: &str) -> Result<Self> {
        let web = Self {
            cluster,
            namespace: namespace.to_owned(),
        };
        let clients = cluster.nodes.iter().map(|node| client(&node.name));
        let clients: Vec<_> = clients.collect();
        cluster.kubectl(&["create", "namespace", namespace])?;
        let manifests = format!("{}---\n{}", servers(), clients.join("---\n"));
        cluster.apply(&manifests.replace("NAMESPACE", namespace))?;
        cluster.wait_for(namespace, "deployment/web")?;
        cluster.kubectl(&[
            "-n",
            namespace,
            "wait",
            "pod",
            "-l",
            "app=client",
            "--for=condition=Ready",
            "--timeout=60s",
        ])?;
        web.wait_for_endpoints()?;
        Ok(web)
    }

    /// Waits until weir has every server on every node: a pod is ready before the rest of the cluster knows that.
    fn wait_for_endpoints(&self) -> Result<()> {
        let path = "jsonpath={.items[*].metadata.name}";
        let pods = [
            "-n",
            "kube-system",
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/name=weir",
            "-o",
            path,
        ];
        for pod in self.cluster.kubectl(&pods)?.split_whitespace() {
            let known = clock::wait_until(PROPAGATION, || self.has_all(pod).unwrap_or(false));
            ensure!(
                known,
                "{pod} does not know all {SERVERS} servers after {PROPAGATION:?}"
            );
        }
        Ok(())
    }

    /// Whether every frontend of the Service has all servers on the node of this pod of weir's.
    fn has_all(&self, pod: &str) -> Result<bool> {
        let namespace = self.namespace.as_str();
        let ask = [
            "-n",
            "kube-system",
            "exec",
            pod,
            "--",
            "weir",
            "services",
            "web",
            "-n",
            namespace,
            "-o",
            "json",
        ];
        let answer: Value = serde_json::from_str(&self.cluster.kubectl(&ask)?)?;
        let frontends = answer.pointer("/items").and_then(Value::as_array);
        let frontends = frontends.context("weir lists no frontends")?;
        let servers = usize::try_from(SERVERS)?;
        let has_all = |frontend: &Value| {
            let endpoints = frontend.pointer("/endpoints").and_then(Value::as_array);
            endpoints.is_some_and(|endpoints| endpoints.len() == servers)
        };
        // The ClusterIP and the node port, in both families.
        Ok(frontends.len() == 4 && frontends.iter().all(has_all))
    }

    /// A field of the Service.
    pub fn service(&self, path: &str) -> Result<String> {
        let path = format!("jsonpath={{{path}}}");
        self.cluster
            .kubectl(&["-n", &self.namespace, "get", "service", "web", "-o", &path])
    }

    /// `ADDRESS:PORT` of the Service inside, in both families.
    pub fn addresses(&self) -> Result<Vec<String>> {
        let list = self.service(".spec.clusterIPs[*]")?;
        Ok(list
            .split_whitespace()
            .map(|address| target(address, 80))
            .collect())
    }

    /// `ADDRESS:PORT` of the Service at every node, in both families.
    pub fn node_addresses(&self) -> Result<Vec<String>> {
        let port = self.service(".spec.ports[0].nodePort")?.parse()?;
        let addresses = self.cluster.nodes.iter().flat_map(|node| &node.addresses);
        Ok(addresses.map(|address| target(address, port)).collect())
    }

    /// Connections from the client pod on a node.
    pub fn from_pod(&self, node: &str, target: &str, count: u64, rate: u64) -> Result<Load> {
        let pod = format!("client-{node}");
        let mut command =
            self.cluster
                .command(&["-n", &self.namespace, "exec", &pod, "--", "/weir-lab-peer"]);
        Load::start(
            connect(&mut command, target, count, rate),
            &format!("{pod} to {target}"),
        )
    }

    /// Connections from a machine outside.
    pub fn from_outside(&self, target: &str, count: u64, rate: u64) -> Result<Load> {
        let mut command = self.cluster.outside(&peer_binary()?);
        Load::start(
            connect(&mut command, target, count, rate),
            &format!("outside to {target}"),
        )
    }
}

impl Drop for Web<'_> {
    fn drop(&mut self) {
        let _ = self
            .cluster
            .kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]);
    }
}

/// Connections that are being made.
pub struct Load {
    child: Child,
    name: String,
}

impl Load {
    fn start(command: &mut Command, name: &str) -> Result<Self> {
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start the client from {name}"))?;
        Ok(Self {
            child,
            name: name.to_owned(),
        })
    }

    /// Whether more connections are to come.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What came of them.
    pub fn finish(self) -> Result<Report> {
        let output = self.child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        let report: Report =
            serde_json::from_slice(&output.stdout).with_context(|| format!("{}: no report", self.name))?;
        println!(
            "{}: {} of {} answered in {} ms, {:?}, p50 {} us, max {} us",
            self.name,
            report.ok,
            report.attempted,
            report.elapsed_ms,
            report.backends,
            report.latency.p50,
            report.latency.max
        );
        Ok(report)
    }

    /// The same; an error if any of them failed.
    pub fn finish_without_loss(self) -> Result<Report> {
        let name = self.name.clone();
        let report = self.finish()?;
        ensure!(
            report.errors.total() == 0 && report.ok == report.attempted,
            "{name}: {:?} {:?}",
            report.errors,
            report.error_texts
        );
        Ok(report)
    }
}

fn connect<'c>(command: &'c mut Command, target: &str, count: u64, rate: u64) -> &'c mut Command {
    let (count, rate) = (count.to_string(), rate.to_string());
    command.args([
        "connect",
        target,
        "--count",
        &count,
        "--rate",
        &rate,
        "--concurrency",
        "16",
    ])
}

fn target(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// Servers that go on serving for a while after they are told to end, as a well-behaved program does.
fn servers() -> String {
    format!(
        r"apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: NAMESPACE}}
spec:
  replicas: {SERVERS}
  strategy: {{rollingUpdate: {{maxUnavailable: 0, maxSurge: 1}}}}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 5
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: DoNotSchedule
          labelSelector: {{matchLabels: {{app: web}}}}
      containers:
        - name: web
          image: {IMAGE}
          imagePullPolicy: Never
          env: [{{name: NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]
          args: [serve, --name=$(NAME), --tcp=8080]
          readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: NAMESPACE}}
spec:
  type: NodePort
  ipFamilyPolicy: PreferDualStack
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080}}]
"
    )
}

fn client(node: &str) -> String {
    format!(
        r"apiVersion: v1
kind: Pod
metadata: {{name: client-{node}, namespace: NAMESPACE, labels: {{app: client}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
    - name: client
      image: {IMAGE}
      imagePullPolicy: Never
      args: [serve, --name=client, --tcp=9999]
"
    )
}
