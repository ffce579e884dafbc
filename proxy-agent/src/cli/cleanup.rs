//! `weir cleanup`: no trace left.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::CleanupFlags;
use crate::kernel;

/// Removes everything, and says what it was.
pub async fn run(flags: &CleanupFlags) -> Result<()> {
    let pins = flags.bpffs.pins();
    let removed = kernel::cleanup(&pins).await?;
    if removed.is_empty() {
        super::print(&format!(
            "nothing to remove: there is no {}\n",
            pins.root().display()
        ))?;
    } else {
        super::print(&format!("{}\n", removed.join("\n")))?;
    }
    if flags.stay { stay().await } else { Ok(()) }
}

/// The first process of a container gets no signal that it does not ask for.
async fn stay() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening to SIGTERM")?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted.context("listening to SIGINT"),
    }
}
