//! What is known of the running cluster between two calls: a file in `target/cluster`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::running::Facts;
use crate::workspace;

/// The process that holds the cluster, and what it made.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    pub(super) holder: Holder,
    pub(super) facts: Facts,
}

/// A process, known by more than its number, which another process may have later.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Holder {
    pub(super) pid: u32,
    /// When it was started, in the kernel's ticks.
    started: u64,
}

impl Holder {
    /// This process.
    pub(super) fn own() -> Result<Self> {
        let pid = std::process::id();
        let started = start_time(pid).context("/proc does not know this process")?;
        Ok(Self { pid, started })
    }

    pub(super) fn is_alive(self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Sends a signal, if it is still the same process.
    pub(super) fn signal(self, signal: Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| self.is_alive()) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start_time(&stat)
}

/// Field 22 of `/proc/PID/stat`; `None` for a process that has ended and is not yet buried.
fn parse_start_time(stat: &str) -> Option<u64> {
    // The name, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The folder of the state, one for each work tree.
pub(super) fn folder() -> Result<PathBuf> {
    let folder = workspace::target().join("cluster");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// The file.
pub(super) fn path() -> PathBuf {
    workspace::target().join("cluster/state.json")
}

impl State {
    /// The cluster that runs now.
    pub(super) fn read() -> Result<Option<Self>> {
        Self::read_from(&path())
    }

    fn read_from(path: &Path) -> Result<Option<Self>> {
        let Ok(text) = fs::read_to_string(path) else {
            return Ok(None);
        };
        let state: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged: remove it", path.display()))?;
        Ok(state.holder.is_alive().then_some(state))
    }

    /// The same, or an error that says how to get one.
    pub(super) fn need() -> Result<Self> {
        Self::read()?.context("no cluster is up: `./x cluster up` starts one")
    }

    pub(super) fn write(&self) -> Result<()> {
        let path = path();
        let draft = path.with_extension("new");
        fs::write(&draft, serde_json::to_string_pretty(self)?)?;
        fs::rename(&draft, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn forget() {
        let _ = fs::remove_file(path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = Holder::own().unwrap();
        assert!(own.is_alive());
        let other = Holder {
            started: own.started + 1,
            ..own
        };
        assert!(!other.is_alive());
    }

    #[test]
    fn the_start_is_field_22() {
        let rest = "1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 99 100";
        let stat = |state: &str| format!("42 (a ) b) {state} {rest}");
        assert_eq!(parse_start_time(&stat("S")), Some(4711));
        assert_eq!(parse_start_time(&stat("Z")), None);
    }
}
