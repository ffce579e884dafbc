//! An Ingress with TLS for two hosts and four paths, pods behind it, and clients outside.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use weir_lab::clock;
use weir_web::report::Report;

use crate::Cluster;

/// How long a change may take until every node serves it, on a busy machine.
const WITHIN: Duration = Duration::from_secs(30);
/// The hosts of the Ingress.
const HOSTS: [&str; 2] = ["shop.weir.test", "calls.weir.test"];

/// A namespace with all of it. Dropping it deletes the namespace.
pub struct Front<'a> {
    cluster: &'a Cluster,
    /// The namespace.
    pub namespace: String,
    folder: PathBuf,
    authority: Issuer<'static, KeyPair>,
}

impl<'a> Front<'a> {
    /// Deploys it, and waits until every node serves it.
    pub fn deploy(cluster: &'a Cluster, namespace: &str) -> Result<Self> {
        let folder = env::temp_dir().join(format!("weir-{namespace}-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let made = params.self_signed(&key)?;
        fs::write(folder.join("ca.pem"), made.pem())?;
        let front = Self {
            cluster,
            namespace: namespace.to_owned(),
            folder,
            authority: Issuer::new(params, key),
        };
        cluster.kubectl(&["create", "namespace", namespace])?;
        front.rotate()?;
        front.apply(MANIFESTS)?;
        cluster.wait_for(namespace, "deployment/web")?;
        for url in ["https://shop.weir.test/", "https://calls.weir.test/v1/a"] {
            front.wait(url, "200 of a pod", |answer| {
                text(answer, "pod").starts_with("web-")
            })?;
        }
        Ok(front)
    }

    /// `kubectl apply` of manifests in the namespace.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        self.cluster
            .apply(&manifests.replace("NAMESPACE", &self.namespace))
    }

    /// A new certificate for both hosts.
    pub fn rotate(&self) -> Result<()> {
        let key = KeyPair::generate()?;
        let made =
            CertificateParams::new(HOSTS.map(str::to_owned).to_vec())?.signed_by(&key, &self.authority)?;
        let indent = |pem: String| pem.trim_end().replace('\n', "\n    ");
        self.apply(&format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: front, namespace: NAMESPACE}}\ntype: kubernetes.io/tls\n\
             stringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
            indent(made.pem()),
            indent(key.serialize_pem())
        ))
    }

    /// `ADDRESS:PORT` of every node, in both families.
    pub fn doors(&self, port: u16) -> Vec<String> {
        let addresses = self.cluster.nodes.iter().flat_map(|node| &node.addresses);
        let door = |address: &String| {
            if address.contains(':') {
                format!("[{address}]:{port}")
            } else {
                format!("{address}:{port}")
            }
        };
        addresses.map(door).collect()
    }

    /// What every node answers to a question.
    pub fn ask(&self, url: &str) -> Result<Vec<Value>> {
        let output = self
            .web("get", url)?
            .output()
            .context("cannot start the client")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{url}: {said}");
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let answers: Vec<Value> = lines
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        Ok(answers)
    }

    /// Waits until the answers of all nodes are such.
    pub fn wait(&self, url: &str, what: &str, is: impl Fn(&Value) -> bool) -> Result<()> {
        let mut last = String::new();
        let done = clock::wait_until(WITHIN, || match self.ask(url) {
            Ok(answers) => {
                last = format!("{answers:?}");
                answers.iter().all(&is)
            }
            Err(error) => {
                last = format!("{error:#}");
                false
            }
        });
        ensure!(done, "{url}: {what}: not within {WITHIN:?}; last it was {last}");
        Ok(())
    }

    /// Begins to make requests to all nodes in turn: for so many the same connection is used.
    pub fn load(&self, url: &str, speech: &str, rate: u32, reuse: u32) -> Result<Requests> {
        let mut command = self.web("load", url)?;
        command
            .args([
                "--speech",
                speech,
                "--rate",
                &rate.to_string(),
                "--reuse",
                &reuse.to_string(),
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(Requests {
            child: command.spawn().context("cannot start the client")?,
            name: format!("{speech} to {url}"),
        })
    }

    fn web(&self, verb: &str, url: &str) -> Result<Command> {
        let binary =
            env::var_os("WEIR_WEB_BIN").context("WEIR_WEB_BIN is not set: run `./x test cluster`")?;
        let port = if url.starts_with("https") { 443 } else { 80 };
        let mut command = self.cluster.outside(binary.as_ref());
        command.args([verb, url, "--connect", &self.doors(port).join(","), "--ca"]);
        command.arg(self.folder.join("ca.pem"));
        Ok(command)
    }
}

impl Drop for Front<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
        // The next one has the same hosts, and the oldest Ingress has their paths.
        let _ = self
            .cluster
            .kubectl(&["-n", &self.namespace, "delete", "ingress", "--all"]);
        let _ = self
            .cluster
            .kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]);
    }
}

/// A text of an answer; empty if it has none.
pub(crate) fn text<'v>(answer: &'v Value, field: &str) -> &'v str {
    answer.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Requests that are being made.
pub struct Requests {
    child: Child,
    name: String,
}

impl Requests {
    /// Ends them, and returns what came of them; an error if any failed.
    pub fn finish_without_loss(self) -> Result<Report> {
        let id = self.child.id().to_string();
        let _told = Command::new("kill").args(["-TERM", &id]).status()?;
        let output = self.child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", self.name);
        let report: Report = serde_json::from_slice(&output.stdout).with_context(|| self.name.clone())?;
        println!(
            "{}: {} answered, {} failed, in {} ms; {} connections, {} ended (first after {:?} ms), {:?}, p50 {} us, p99 {} us, max {} us",
            self.name,
            report.ok,
            report.failed,
            report.elapsed_ms,
            report.connections,
            report.ended,
            report.first_end_ms,
            report.pods,
            report.p50,
            report.p99,
            report.max
        );
        ensure!(
            report.failed == 0,
            "{}: {} failed: {:#?}",
            self.name,
            report.failed,
            report.failures
        );
        Ok(report)
    }
}

const MANIFESTS: &str = r"apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NAMESPACE}
spec:
  replicas: 3
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
        - name: web
          image: registry.weir.test/web:dev
          imagePullPolicy: Never
          env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
          args: [serve, --name=$(NAME), --port=8080, --linger=5]
          readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NAMESPACE}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports:
    - {name: http, port: 80, targetPort: 8080}
    - {name: calls, port: 90, targetPort: 8080, appProtocol: kubernetes.io/h2c}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: front, namespace: NAMESPACE}
spec:
  ingressClassName: weir
  tls: [{hosts: [shop.weir.test, calls.weir.test], secretName: front}]
  rules:
    - host: shop.weir.test
      http:
        paths:
          - {path: /, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}
          - {path: /news, pathType: Exact, backend: {service: {name: web, port: {number: 80}}}}
    - host: calls.weir.test
      http:
        paths:
          - {path: /v1, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
          - {path: /echo.Echo, pathType: Prefix, backend: {service: {name: web, port: {name: calls}}}}
";
