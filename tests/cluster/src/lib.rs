//! Tests in the cluster that `./x test cluster` starts: kubectl, and traffic from pods and from outside.

mod front;
mod rate;
mod traffic;

use std::env;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

pub use front::{Front, Requests};
pub use rate::fast_enough;
pub use traffic::{Load, SERVERS, Web};

/// No call of kubectl takes longer, in seconds: without an API server it would wait for ever.
const LIMIT: &str = "180";

/// How `timeout` says that it was longer.
const TIMED_OUT: i32 = 124;

/// The cluster.
pub struct Cluster {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    /// The namespace of a machine that is no part of the cluster.
    client: PathBuf,
    /// Names and addresses of the nodes.
    pub nodes: Vec<Node>,
}

/// A node.
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its addresses, IPv4 first.
    pub addresses: [String; 2],
}

impl Cluster {
    /// The cluster that runs for these tests; `None`, and a word about it, if there is none.
    ///
    /// # Errors
    ///
    /// If `REQUIRE_ROOT=1` and there is none.
    pub fn find() -> Result<Option<Self>> {
        let Some(path) = env::var_os("WEIR_CLUSTER") else {
            ensure!(
                env::var("REQUIRE_ROOT").as_deref() != Ok("1"),
                "there is no cluster: run `./x test cluster`"
            );
            eprintln!("SKIP: there is no cluster: run `./x test cluster`");
            return Ok(None);
        };
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let state: Value = serde_json::from_str(&text)?;
        let nodes = state
            .pointer("/facts/nodes")
            .and_then(Value::as_array)
            .context("the state of the cluster has no nodes")?;
        let node = |node: &Value| {
            Ok(Node {
                name: string(node, "/name")?,
                addresses: [string(node, "/machine/v4")?, string(node, "/machine/v6")?],
            })
        };
        Ok(Some(Self {
            kubectl: string(&state, "/facts/kubectl")?.into(),
            kubeconfig: string(&state, "/facts/kubeconfig")?.into(),
            client: string(&state, "/facts/client/netns")?.into(),
            nodes: nodes.iter().map(node).collect::<Result<_>>()?,
        }))
    }

    /// `kubectl` with these arguments; ends in any case.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=5", LIMIT])
            .arg(&self.kubectl)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// What `kubectl` prints; an error if it fails.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let output = self.command(args).output().context("cannot start kubectl")?;
        ensure!(
            output.status.code() != Some(TIMED_OUT),
            "kubectl {}: not within {LIMIT} s",
            args.join(" ")
        );
        if !output.status.success() {
            bail!(
                "kubectl {}: {}{}",
                args.join(" "),
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// `kubectl apply` of a text.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        let mut command = self.command(&["apply", "-f", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().context("cannot start kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl reads nothing")?;
        stdin.write_all(manifests.as_bytes())?;
        drop(stdin);
        ensure!(child.wait()?.success(), "kubectl apply failed");
        Ok(())
    }

    /// Restarts the pods of a `Deployment` or a `DaemonSet` one after the other, and waits for the end of it.
    pub fn restart(&self, namespace: &str, object: &str) -> Result<()> {
        self.kubectl(&["-n", namespace, "rollout", "restart", object])?;
        self.wait_for(namespace, object)
    }

    /// Waits until all pods of an object are ready.
    pub fn wait_for(&self, namespace: &str, object: &str) -> Result<()> {
        self.kubectl(&["-n", namespace, "rollout", "status", object, "--timeout=120s"])
            .map(drop)
    }

    /// Head and body of the answer to a question over HTTP, from the machine outside.
    pub fn ask(&self, address: &str, port: u16, path: &str) -> Result<(String, String)> {
        let host = if address.contains(':') {
            format!("[{address}]")
        } else {
            address.to_owned()
        };
        let url = format!("http://{host}:{port}{path}");
        let output = self
            .outside("curl".as_ref())
            .args([
                "--silent",
                "--show-error",
                "--include",
                "--max-time",
                "5",
                "--noproxy",
                "*",
            ])
            .arg(&url)
            .output()
            .context("cannot start curl")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "{url}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let (head, body) = text.split_once("\r\n\r\n").context("no end of the head")?;
        Ok((head.to_owned(), body.to_owned()))
    }

    /// A command on the machine outside.
    pub(crate) fn outside(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.client.display()))
            .arg(program)
            .stdin(Stdio::null());
        command
    }
}

fn string(value: &Value, pointer: &str) -> Result<String> {
    let text = value.pointer(pointer).and_then(Value::as_str);
    text.map(str::to_owned)
        .with_context(|| format!("the state of the cluster has no {pointer}"))
}
