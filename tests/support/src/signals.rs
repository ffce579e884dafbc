//! Ctrl-C and its relatives: the lab goes, and what was started goes with it.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::lab::{self, lock};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Leaders of the process groups that end with this process.
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// From now on Ctrl-C and `SIGTERM` remove this process's labs before they end it, with exit code 130 or 143.
///
/// For programs with a terminal. Tests do without: the next run sweeps up.
pub fn clean_up_on_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot wait for signals")?;
    thread::spawn(move || {
        let Some(signal) = signals.forever().next() else {
            return;
        };
        INTERRUPTED.store(true, Ordering::Relaxed);
        // Visible on the line after `^C`.
        eprintln!("\nstopping: cleaning up");
        for group in lock(&GROUPS).drain(..) {
            let _ = rustix::process::kill_process_group(group, Signal::TERM);
        }
        lab::remove_all();
        std::process::exit(128 + signal);
    });
    Ok(())
}

/// Whether a signal is ending this process, and errors are only its echo.
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// When a signal ends the process, what the other threads run into is only noise: they wait for the end instead.
pub(crate) fn wait_if_interrupted() {
    while is_interrupted() {
        thread::park();
    }
}

/// A command outside of any lab, such as a build. A signal that ends this process ends it, and all that it started.
#[derive(Debug)]
pub struct Group {
    child: Child,
    leader: Option<Pid>,
}

impl Group {
    /// Starts the command. Needs [`clean_up_on_signals`].
    pub fn start(command: &mut Command) -> Result<Self> {
        // Locked until the group is known, so that no signal comes between.
        let mut groups = lock(&GROUPS);
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let leader = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        groups.extend(leader);
        Ok(Self { child, leader })
    }

    /// The child.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The number may soon be another process's.
        lock(&GROUPS).retain(|group| Some(*group) != self.leader);
    }
}
