//! The process that holds a cluster: everything it started ends with it.
//!
//! `up` starts it and reads what it says until it is ready. If `up` goes away before, so does the cluster.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result};
use rustix::process::Signal;
use weir_lab::clock;

use super::running::Cluster;
use super::state::{self, Holder, State, folder};
use super::{archives, up};

/// What `up` waits for, on a line of its own.
pub(super) const READY: &str = "ready";

/// Whether the cluster stays without the one who started it.
static STAYS: AtomicBool = AtomicBool::new(false);

/// What `serve` is asked.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    what: up::Request,
    /// Go on when the starter ends, once the cluster is up
    #[arg(long)]
    stay: bool,
}

/// Runs until a signal ends it.
pub(super) fn run(args: &Args) -> Result<()> {
    let options = args.what.options;
    let start = clock::now();
    // The terminal and its Ctrl-C are another session's.
    let _ = rustix::process::setsid();
    weir_lab::clean_up_on_signals()?;
    let own = Holder::own()?;
    let _lock = state::lock()?;
    thread::spawn(move || end_with_starter(own));
    let mut parts = up::parts(false)?;
    parts.given = archives::read(&args.what.images)?;
    let kubeconfig = folder()?.join("kubeconfig");
    let mut say = |text: &str| line(&format!("{:>6.1} s  {text}", start.elapsed().as_secs_f32()));
    let cluster = Cluster::start(&parts, options, &kubeconfig, &mut say)?;
    let state = State {
        holder: own,
        facts: cluster.facts(&parts, options, &kubeconfig)?,
    };
    state.write()?;
    STAYS.store(args.stay, Ordering::Relaxed);
    line(READY);
    loop {
        // The thread that waits for signals ends the process.
        thread::park();
    }
}

/// The starter holds the other end of the standard input.
fn end_with_starter(own: Holder) {
    let _ = io::stdin().read_to_end(&mut Vec::new());
    if !STAYS.load(Ordering::Relaxed) {
        own.signal(Signal::TERM);
    }
}

fn line(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Copies the logs to where they outlive the cluster; a sentence that says where.
pub(super) fn keep_logs(logs: &Path, disk: &Path) -> String {
    let nodes = fs::read_dir(disk).into_iter().flatten().flatten();
    let folders = nodes.map(|entry| entry.path()).chain([logs.to_owned()]);
    let folders: Vec<_> = folders.collect();
    match copy_logs(&folders) {
        Ok(kept) => format!("all logs are in {}", kept.display()),
        Err(error) => format!("the logs are lost: {error:#}"),
    }
}

fn copy_logs(from: &[PathBuf]) -> Result<PathBuf> {
    let kept = folder()?.join("failed");
    let _ = fs::remove_dir_all(&kept);
    fs::create_dir_all(&kept)?;
    for folder in from {
        for entry in fs::read_dir(folder)?.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let above = folder.file_name().unwrap_or_default().display();
                let name = format!("{above}-{}", entry.file_name().display());
                fs::copy(&path, kept.join(name))
                    .with_context(|| format!("cannot copy {}", path.display()))?;
            }
        }
    }
    Ok(kept)
}
