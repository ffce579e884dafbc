//! Calls of `kubectl`, with the kubeconfig of the cluster.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::programs::Programs;
use crate::shell;

/// `kubectl` for one cluster.
#[derive(Clone)]
pub(super) struct Kubectl {
    binary: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    pub(super) fn new(programs: &Programs, kubeconfig: &Path) -> Self {
        Self {
            binary: programs.path("kubectl"),
            kubeconfig: kubeconfig.to_owned(),
        }
    }

    /// The command, with nothing of the user's own settings.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--request-timeout=10s")
            .args(args)
            .env("KUBECACHEDIR", self.kubeconfig.with_file_name("kubectl-cache"))
            .stdin(Stdio::null());
        command
    }

    pub(super) fn succeeds(&self, args: &[&str]) -> bool {
        let output = self.command(args).output();
        output.is_ok_and(|output| output.status.success())
    }

    /// What it prints.
    pub(super) fn output(&self, args: &[&str]) -> Result<String> {
        shell::output(&mut self.command(args))
    }

    /// `kubectl apply` of a text.
    pub(super) fn apply(&self, manifests: &str) -> Result<()> {
        let mut command = self.command(&["apply", "--server-side", "-f", "-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl reads nothing")?;
        stdin.write_all(manifests.as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "kubectl apply: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    /// Waits until all pods of a `Deployment` or a DaemonSet are ready and of its newest version.
    pub(super) fn wait_for_rollout(&self, namespace: &str, object: &str, limit: Duration) -> Result<()> {
        let seconds = format!("--timeout={}s", limit.as_secs());
        let mut rollout = Command::new(&self.binary);
        rollout.arg("--kubeconfig").arg(&self.kubeconfig);
        rollout.args(["-n", namespace, "rollout", "status", object, &seconds]);
        let Err(error) = shell::output(&mut rollout) else {
            return Ok(());
        };
        let pods = self
            .output(&["-n", namespace, "get", "pods", "-o", "wide"])
            .unwrap_or_default();
        let events = self
            .output(&["-n", namespace, "get", "events", "--sort-by=.lastTimestamp"])
            .unwrap_or_default();
        let events: Vec<_> = events.lines().rev().take(10).collect();
        bail!("{error:#}\n{pods}\n{}", events.join("\n"))
    }

    /// Whether a node is there, and ready.
    pub(super) fn node_is_ready(&self, name: &str) -> bool {
        let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        self.output(&["get", "node", name, "-o", path])
            .is_ok_and(|state| state == "True")
    }
}
