//! Verbs that look at the running cluster, or use it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use super::node::enter;
use super::running::Facts;
use super::state::State;
use crate::shell;

pub(super) fn kubeconfig() -> Result<()> {
    let state = State::need()?;
    shell::say(&state.facts.kubeconfig.display().to_string());
    Ok(())
}

/// Becomes kubectl.
pub(super) fn kubectl(args: &[String]) -> Result<()> {
    let state = State::need()?;
    let error = kubectl_command(&state.facts).args(args).exec();
    Err(error).context("cannot start kubectl")
}

/// Becomes a command on a node.
pub(super) fn shell(node: &str, command: &[String]) -> Result<()> {
    let state = State::need()?;
    let names: Vec<_> = state.facts.nodes.iter().map(|node| node.name.as_str()).collect();
    let found = state.facts.nodes.iter().find(|facts| facts.name == node);
    let facts = found.with_context(|| format!("there is no node {node}, only {}", names.join(", ")))?;
    let mut entered = enter(facts.init);
    entered.arg("--");
    if command.is_empty() {
        entered.arg("bash");
    }
    let error = entered.args(command).env("CONTAINERD_NAMESPACE", "k8s.io").exec();
    Err(error).context("cannot start nsenter")
}

pub(super) fn status() -> Result<()> {
    let Some(state) = State::read()? else {
        shell::say("no cluster is up");
        return Ok(());
    };
    let State { holder, facts } = &state;
    shell::say(&format!(
        "up, held by process {}: {}",
        holder.pid,
        facts.options.to_args().join(" ")
    ));
    shell::say(&format!("kubeconfig  {}", facts.kubeconfig.display()));
    shell::say(&format!("logs        {}", facts.logs.display()));
    for node in &facts.nodes {
        shell::say(&format!(
            "node {}     {}  cgroup {}  logs {}",
            node.name,
            node.machine.v4,
            node.cgroup.display(),
            node.folder.display()
        ));
    }
    for args in [["get", "nodes", "-o", "wide"], ["get", "pods", "-A", "-owide"]] {
        shell::say("");
        shell::run(kubectl_command(facts).args(args))?;
    }
    Ok(())
}

fn kubectl_command(facts: &Facts) -> Command {
    let mut command = Command::new(&facts.kubectl);
    command.env("KUBECONFIG", &facts.kubeconfig);
    command
}
