//! The program under test on a node of the lab.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::{Host, Node, Process, clock, process};

/// How long an agent may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// A `weir agent` on a node. Dropping it kills the agent; what it pinned stays until the lab goes.
#[derive(Debug)]
pub struct Weir {
    node: Node,
    arguments: Vec<String>,
    rights: Rights,
    log: PathBuf,
    process: Option<Process>,
}

/// What an agent may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rights {
    /// All that root may.
    #[default]
    Root,
    /// What the container of the DaemonSet may. Needs `setpriv`.
    Pod,
}

impl Rights {
    /// The program, run with these rights.
    fn command(self, program: &Path) -> Command {
        if self == Self::Root {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command
            .arg("--bounding-set=-all,+bpf,+net_admin,+perfmon")
            .arg(program);
        command
    }
}

impl Weir {
    /// Starts an agent that reads `manifests`, and waits until it is ready.
    pub fn start(node: &Node, manifests: &Path, extra: &[&str]) -> Result<Self> {
        Self::start_with(Rights::Root, node, manifests, extra)
    }

    /// The same with other rights.
    pub fn start_with(rights: Rights, node: &Node, manifests: &Path, extra: &[&str]) -> Result<Self> {
        let mut arguments = vec!["--manifests".to_owned(), manifests.display().to_string()];
        arguments.extend(extra.iter().map(|&argument| argument.to_owned()));
        Self::start_as(rights, node, arguments)
    }

    /// Starts an agent that reads an API server, and waits until it is ready.
    pub fn start_at(node: &Node, kubeconfig: &Path, extra: &[&str]) -> Result<Self> {
        let mut arguments = vec!["--kubeconfig".to_owned(), kubeconfig.display().to_string()];
        arguments.extend(extra.iter().map(|&argument| argument.to_owned()));
        Self::start_as(Rights::Root, node, arguments)
    }

    fn start_as(rights: Rights, node: &Node, arguments: Vec<String>) -> Result<Self> {
        let mut weir = Self {
            log: node.dir().join(format!("{}-weir.log", node.name())),
            node: node.clone(),
            arguments,
            rights,
            process: None,
        };
        weir.begin()?;
        Ok(weir)
    }

    /// `kill -9`. The data plane goes on.
    pub fn kill9(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// `SIGTERM`, and the agent must end by itself with success. The data plane goes on.
    pub fn term(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            let status = process.terminate(Duration::from_secs(10))?;
            ensure!(
                status.success(),
                "weir ended with {status}; its log:\n{}",
                self.log()
            );
        }
        Ok(())
    }

    /// Starts the agent again, killing it first if it runs, and waits until it is ready.
    pub fn restart(&mut self) -> Result<()> {
        self.kill9()?;
        self.begin()
    }

    /// Whether the agent runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// The process of the agent, if it runs.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// What all runs of the agent logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Runs a verb such as `services` against this node's maps, and returns what it printed.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        self.node.weir(arguments)
    }

    fn begin(&mut self) -> Result<()> {
        let mut command = self.rights.command(&weir_binary()?);
        command
            .args(["agent", "--node-name", self.node.name()])
            .arg("--cgroup")
            .arg(self.node.cgroup())
            .arg("--bpffs")
            .arg(self.node.bpffs())
            .args(&self.arguments);
        process::log_to(&mut command, &self.log)?;
        let before = self.log().len();
        let mut process = self.node.start(command, &self.log)?;
        let mut running = true;
        let ready = clock::wait_until(READY_WITHIN, || {
            let log = self.log();
            let ready = log.get(before..).is_some_and(says_ready);
            running = process.is_running();
            ready || !running
        });
        if ready && running {
            self.process = Some(process);
            return Ok(());
        }
        let what = if running { "is not ready" } else { "has ended" };
        bail!(
            "weir on {} {what}; its log:\n{}",
            self.node.name(),
            self.log().get(before..).unwrap_or_default()
        )
    }
}

impl Node {
    /// Runs `weir ARGUMENTS --bpffs …` on this node, and returns its standard output; an error if it fails.
    pub fn weir(&self, arguments: &[&str]) -> Result<String> {
        let output = self.weir_output(arguments)?;
        ensure!(
            output.status.success(),
            "`weir {}` on {} failed: {}",
            arguments.join(" "),
            self.name(),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same, whatever comes of it.
    pub fn weir_output(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(weir_binary()?);
        command.args(arguments).arg("--bpffs").arg(self.bpffs());
        Host::output(self, command)
    }
}

/// Whether one of these log lines is the agent's `ready …`, as text or as JSON.
fn says_ready(log: &str) -> bool {
    log.lines().any(|line| {
        line.split(|character: char| !character.is_alphanumeric())
            .any(|word| word == "ready")
    })
}

/// The program: from `WEIR_BIN`, or what `cargo xtask build` made.
pub fn weir_binary() -> Result<PathBuf> {
    program("weir", "WEIR_BIN")
}

/// A program of this workspace: the one that this variable of the environment names, or what `./x` made.
pub fn program(name: &str, variable: &str) -> Result<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let advice = if named.is_some() {
        format!("correct {variable}, which names it")
    } else {
        format!("run `./x build`, or name the program with {variable}")
    };
    let path = named.unwrap_or_else(|| target_dir().join("release").join(name));
    ensure!(path.is_file(), "{} is missing: {advice}", path.display());
    path.canonicalize()
        .with_context(|| format!("cannot find {}", path.display()))
}

/// The folder of the workspace that this crate was built in.
pub fn workspace_root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_owned()
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    let root = workspace_root();
    let dir = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    root.join(dir)
}

#[cfg(test)]
mod tests {
    use super::says_ready;

    #[test]
    fn the_ready_line_is_found() {
        assert!(says_ready(
            "2026 INFO weir: ready services=2 backends=6 interfaces=4\n"
        ));
        assert!(says_ready(
            r#"{"level":"INFO","fields":{"message":"ready","services":2}}"#
        ));
        assert!(!says_ready("INFO weir: the folder is already read\n"));
    }
}
