//! The `ip` and `ethtool` commands.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs lines of `ip -batch` in one process, in the named namespace or (only to manage namespaces) in our own.
pub(crate) fn batch(netns: Option<&str>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(netns) = netns {
        command.args(["-netns", netns]);
    }
    command.args(["-batch", "-"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot run `ip`: install iproute2")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(lines.as_bytes())
            .context("cannot write to `ip`")?;
    }
    let output = child.wait_with_output().context("cannot wait for `ip`")?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "`ip -batch` in {} failed: {}\n{lines}",
        netns.unwrap_or("the namespace of this process"),
        String::from_utf8_lossy(&output.stderr).trim()
    )
}
