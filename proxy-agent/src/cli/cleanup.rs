//! `weir cleanup`: no trace left.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{BpffsFlag, CleanupFlags};
use crate::kernel::{self, CleanupError};

/// Removes everything, and says what it was.
pub async fn run(flags: &CleanupFlags) -> Result<()> {
    let pins = flags.bpffs.pins();
    let said = match kernel::cleanup(&pins).await {
        Ok(removed) if removed.is_empty() => {
            format!("nothing to remove: there is no {}", pins.root().display())
        }
        Ok(removed) => removed.join("\n"),
        Err(error) => nothing_mounted(&flags.bpffs, error)?,
    };
    super::print(&format!("{said}\n"))?;
    if flags.stay { stay().await } else { Ok(()) }
}

/// A node without a BPF file system at the usual place never had weir. That somebody named the wrong place is more
/// likely elsewhere.
fn nothing_mounted(flag: &BpffsFlag, error: CleanupError) -> Result<String, CleanupError> {
    match error {
        CleanupError::NotBpf { path } | CleanupError::Missing { path } if flag.is_default() => Ok(format!(
            "nothing to remove: no BPF file system is mounted at {}",
            path.display()
        )),
        other => Err(other),
    }
}

/// The first process of a container gets no signal that it does not ask for.
async fn stay() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening to SIGTERM")?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted.context("listening to SIGINT"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::kernel::DEFAULT_BPFFS;

    #[test]
    fn only_the_usual_place_may_be_without_a_file_system() {
        // WEIR_BPFFS of the environment that tests run in would move it.
        if std::env::var_os("WEIR_BPFFS").is_some() {
            return;
        }
        let said = |path: &str| {
            let bpffs = PathBuf::from(path);
            let error = CleanupError::NotBpf { path: bpffs.clone() };
            nothing_mounted(&BpffsFlag { bpffs }, error)
        };
        assert!(said(DEFAULT_BPFFS).unwrap().contains(DEFAULT_BPFFS));
        assert!(said("/tmp").is_err());
    }
}
