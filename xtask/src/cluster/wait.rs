//! Waits that end: with what was waited for, or with an error that shows the log.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use weir_lab::{Host, Process, clock};

use std::process::Command;

/// Lines of a log that an error shows.
const LINES: usize = 15;

/// A process of the cluster, with the log that tells why it failed.
pub(super) struct Part {
    pub(super) name: String,
    process: Process,
}

impl Part {
    /// Starts a process on a machine.
    pub(super) fn start(name: &str, host: &Host, command: Command) -> Result<Self> {
        let process = host
            .spawn(command)
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            process,
        })
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(super) fn log(&self) -> PathBuf {
        self.process.log_path().to_owned()
    }

    /// Waits until `done`; an error if that takes longer than `limit`, or if the process ends before.
    pub(super) fn wait(&mut self, what: &str, limit: Duration, mut done: impl FnMut() -> bool) -> Result<()> {
        let start = clock::now();
        while !done() {
            if !self.process.is_running() {
                bail!("{} has ended; {}", self.name, tail(&self.log()));
            }
            if start.elapsed() > limit {
                bail!("{what}: not within {limit:?}; {}", tail(&self.log()));
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// The last lines of a log, with its path.
pub(super) fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
    format!("the last lines of {}:\n  {}", log.display(), last.join("\n  "))
}
