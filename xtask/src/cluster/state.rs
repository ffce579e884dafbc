//! What is known of the running cluster between two calls: a file in `target/cluster`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::running::Facts;
use crate::lock::Lock;
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
        Self::of(std::process::id()).context("/proc does not know this process")
    }

    /// A process that runs.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let started = start_time(pid)?;
        Some(Self { pid, started })
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

/// A work tree has one cluster, and one place where it stands what that is: who starts one holds this to its end.
pub(super) fn lock() -> Result<Lock> {
    Lock::take(&folder()?.join("lock"))?.context("another ./x is starting a cluster in this work tree")
}

/// The file.
pub(super) fn path() -> PathBuf {
    workspace::target().join("cluster/state.json")
}

/// The one who holds a cluster of this work tree now, whichever version of this program he is.
pub(super) fn holder() -> Result<Option<Holder>> {
    Ok(living(&path())?.map(|(holder, _)| holder))
}

/// What every version can read of every other's file.
#[derive(Deserialize)]
struct Held {
    holder: Holder,
}

/// The holder, if he lives, and the whole text.
fn living(path: &Path) -> Result<Option<(Holder, String)>> {
    let Ok(text) = fs::read_to_string(path) else {
        return Ok(None);
    };
    let Held { holder } =
        serde_json::from_str(&text).with_context(|| format!("{} is damaged: remove it", path.display()))?;
    Ok(holder.is_alive().then_some((holder, text)))
}

impl State {
    /// The cluster that runs now.
    pub(super) fn read() -> Result<Option<Self>> {
        Self::read_from(&path())
    }

    fn read_from(path: &Path) -> Result<Option<Self>> {
        let Some((_, text)) = living(path)? else {
            return Ok(None);
        };
        let state = serde_json::from_str(&text)
            .context("the cluster that is up is another version's: `./x cluster down` ends it")?;
        Ok(Some(state))
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

    /// The cluster that this process held is no more. What is known of another one stays.
    pub(super) fn forget(holder: Holder) {
        forget_in(&path(), holder);
    }
}

fn forget_in(path: &Path, holder: Holder) {
    let text = fs::read_to_string(path).unwrap_or_default();
    if serde_json::from_str::<Held>(&text).is_ok_and(|held| held.holder == holder) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("weir-state-{name}-{}", std::process::id()));
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn the_holder_is_read_whatever_the_rest_is() {
        let own = Holder::own().unwrap();
        let text = format!(
            r#"{{"holder": {}, "facts": 7}}"#,
            serde_json::to_string(&own).unwrap()
        );
        let path = file("other", &text);
        assert_eq!(living(&path).unwrap().unwrap().0, own);
        let error = State::read_from(&path).err().unwrap();
        assert!(error.to_string().contains("down"), "{error:#}");
        fs::write(&path, text.replace(&own.started.to_string(), "1")).unwrap();
        assert!(
            State::read_from(&path).unwrap().is_none(),
            "nobody holds it any more"
        );
        fs::write(&path, "{}").unwrap();
        assert!(living(&path).err().unwrap().to_string().contains("damaged"));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn only_the_holders_own_cluster_is_forgotten() {
        let own = Holder::own().unwrap();
        let other = Holder {
            started: own.started + 1,
            ..own
        };
        let path = file(
            "forget",
            &format!(r#"{{"holder": {}}}"#, serde_json::to_string(&own).unwrap()),
        );
        forget_in(&path, other);
        assert!(path.exists());
        forget_in(&path, own);
        assert!(!path.exists());
    }

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
