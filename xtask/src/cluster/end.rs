//! `down`: the end of a cluster that stays.

use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::Signal;
use weir_lab::clock;

use super::running::PREFIX;
use super::state::{self, Holder, State};
use crate::shell;

/// How long the end may take before it is forced, and then.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ends the cluster, and removes what a killed one left. Nothing to end is no error.
pub(super) fn down() -> Result<()> {
    let missing = weir_lab::missing();
    if let Some(holder) = state::holder()? {
        if let Some(reason) = missing {
            bail!("the cluster that process {} holds stays up: {reason}", holder.pid);
        }
        let (result, took) = shell::timed(|| end(holder));
        result?;
        eprintln!("x: the cluster has ended after {:.1} s", took.as_secs_f32());
        State::forget(holder);
    } else {
        // Not from under one who is starting one.
        drop(state::lock()?);
        eprintln!("x: no cluster is up");
    }
    if missing.is_none() {
        weir_lab::sweep(PREFIX)?;
    }
    Ok(())
}

/// Ends the process that holds a cluster, and with it the cluster.
pub(super) fn end(holder: Holder) -> Result<()> {
    end_within(holder, PATIENCE)
}

fn end_within(holder: Holder, patience: Duration) -> Result<()> {
    for signal in [Signal::TERM, Signal::KILL] {
        holder.signal(signal);
        if clock::wait_until(patience, || !holder.is_alive()) {
            return Ok(());
        }
        if signal == Signal::TERM {
            eprintln!("x: the cluster does not end: killing it");
        }
    }
    bail!(
        "the cluster does not end: process {} is alive after a kill",
        holder.pid
    );
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn start(script: &str) -> (Child, Holder) {
        let mut command = Command::new("sh");
        let mut child = command
            .args(["-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It is as it should be when it has said something.
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let holder = Holder::of(child.id()).unwrap();
        (child, holder)
    }

    #[test]
    fn who_does_not_listen_is_killed() {
        let limit = Duration::from_millis(300);
        for script in ["echo; exec sleep 60", "trap '' TERM; echo; exec sleep 60"] {
            let (mut child, holder) = start(script);
            assert!(holder.is_alive());
            end_within(holder, limit).unwrap();
            assert!(!holder.is_alive());
            child.wait().unwrap();
        }
    }
}
