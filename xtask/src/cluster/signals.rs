//! Ctrl-C and its relatives while a cluster hangs on this process: the cluster ends, and all that works with it.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::end::end;
use super::state::{Holder, State};

/// The cluster that a signal ends.
static CLUSTER: Mutex<Option<Holder>> = Mutex::new(None);

/// Whether somebody waits for signals.
static WAITS: Mutex<bool> = Mutex::new(false);

/// From now on a signal ends this cluster, and then this process and those that it started.
pub(super) fn end_cluster(holder: Holder) -> Result<()> {
    set(Some(holder));
    let mut waits = WAITS.lock().unwrap_or_else(PoisonError::into_inner);
    if !*waits {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot wait for signals")?;
        thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                stop(signal);
            }
        });
        *waits = true;
    }
    Ok(())
}

/// The cluster is no longer this process's.
pub(super) fn leave_cluster() {
    set(None);
}

fn set(holder: Option<Holder>) {
    *CLUSTER.lock().unwrap_or_else(PoisonError::into_inner) = holder;
}

fn stop(signal: i32) {
    eprintln!("\nx: stopping: cleaning up");
    // First those that would go on against an API server that is no more.
    signal_children(Signal::TERM);
    let holder = *CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(holder) = holder.filter(|holder| holder.is_alive()) {
        if let Err(error) = end(holder) {
            eprintln!("x: {error:#}");
        }
        State::forget(holder);
    }
    signal_children(Signal::KILL);
    std::process::exit(128 + signal);
}

/// Tests and the like. A cluster's holder has a session of its own.
fn signal_children(signal: Signal) {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let processes: Vec<_> = stats.filter_map(|stat| Process::parse(&stat)).collect();
    let own = rustix::process::getpid().as_raw_nonzero().get();
    for pid in descendants(own, &processes).into_iter().filter_map(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Who descends from whom.
#[derive(Clone, Copy)]
struct Process {
    pid: i32,
    parent: i32,
    session: i32,
}

impl Process {
    /// Of `/proc/PID/stat`.
    fn parse(stat: &str) -> Option<Self> {
        let pid = stat.split(' ').next()?.parse().ok()?;
        // The name, in parentheses, may hold anything.
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ').skip(1).map(|field| field.parse().ok());
        Some(Self {
            pid,
            parent: fields.next()??,
            session: fields.nth(1)??,
        })
    }
}

/// Those that a process started, and that these started, as far as they stayed in its session.
fn descendants(own: i32, processes: &[Process]) -> Vec<i32> {
    let session = processes.iter().find(|process| process.pid == own);
    let Some(session) = session.map(|process| process.session) else {
        return Vec::new();
    };
    let mut found = vec![own];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        let children = processes
            .iter()
            .filter(|process| process.parent == parent && process.session == session);
        found.extend(children.map(|process| process.pid));
        at += 1;
    }
    found.split_off(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_and_session_are_fields_4_and_6() {
        let process = Process::parse("42 (a ) b) S 7 42 6 34816 42 4194304").unwrap();
        assert_eq!((process.pid, process.parent, process.session), (42, 7, 6));
        assert!(Process::parse("42 (a) S").is_none());
    }

    #[test]
    fn a_session_of_its_own_is_left_alone() {
        let process = |pid, parent, session| Process { pid, parent, session };
        let processes = [
            process(1, 0, 1),
            process(10, 1, 5),
            // cargo, a test, and what holds the cluster
            process(11, 10, 5),
            process(12, 11, 5),
            process(13, 10, 13),
            process(14, 13, 13),
            // a neighbour
            process(20, 1, 5),
        ];
        assert_eq!(descendants(10, &processes), [11, 12]);
        assert_eq!(descendants(99, &processes), [0; 0]);
    }
}
