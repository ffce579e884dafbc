//! `up` and `down`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use weir_lab::clock;

use super::options::{Options, Proxy};
use super::programs::Programs;
use super::running::{PREFIX, Parts};
use super::serve::READY;
use super::state::{State, folder};
use super::{cache, images, wait};
use crate::{image, packages, shell, workspace};

/// Commands that a cluster runs.
const NEEDED: [&str; 8] = [
    "/usr/lib/cni/ptp",
    "containerd",
    "ctr",
    "ip",
    "iptables",
    "nft",
    "nsenter",
    "runc",
];

/// How long the end may take before it is forced.
const END: Duration = Duration::from_secs(30);

/// What `up` is asked.
#[derive(clap::Args)]
pub(super) struct Request {
    #[command(flatten)]
    pub(super) options: Options,
    /// An image archive that the nodes get as well; one of weir is used instead of building it
    #[arg(long = "image", value_name = "FILE")]
    pub(super) images: Vec<PathBuf>,
}

/// A cluster that ends with the one who asked for it: dropping this ends it.
pub(super) struct Held {
    child: Option<Child>,
}

impl Held {
    /// Leaves the cluster to `down`.
    fn leave(mut self) {
        self.child = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It waits for this pipe to close.
            drop(child.stdin.take());
            let _ = child.wait();
            State::forget();
        }
    }
}

/// Builds what is not in the cache.
pub(super) fn parts(with_e2e: bool) -> Result<Parts> {
    packages::need(&images::NEEDED)?;
    let programs = Programs::ensure(with_e2e)?;
    let images = images::ensure(&programs)?;
    Ok(Parts { programs, images })
}

/// Builds it, and makes room where others lie that nobody uses any more.
pub(super) fn build(with_e2e: bool) -> Result<()> {
    let parts = parts(with_e2e)?;
    let folder = workspace::cache()?.join("cluster");
    cache::prune(&folder, &parts.programs.folders())?;
    cache::prune(&folder.join("images"), &parts.images)
}

pub(super) fn up(request: &Request) -> Result<()> {
    let options = request.options;
    if let Some(state) = State::read()? {
        return already(&state, options);
    }
    let (result, took) = shell::timed(|| start(request, true));
    result?.leave();
    let state = State::need()?;
    eprintln!("x: the cluster is up after {:.1} s", took.as_secs_f32());
    eprintln!("   export KUBECONFIG={}", state.facts.kubeconfig.display());
    eprintln!("   {} get nodes -o wide", state.facts.kubectl.display());
    Ok(())
}

/// Starts a cluster for as long as the result lives.
pub(super) fn hold(request: &Request) -> Result<Held> {
    if let Some(state) = State::read()? {
        bail!(
            "a cluster is up, started with {}: `./x cluster down` ends it",
            state.facts.options.to_args().join(" ")
        );
    }
    start(request, false)
}

fn already(state: &State, options: Options) -> Result<()> {
    let runs = state.facts.options;
    if runs != options {
        bail!(
            "another cluster is up, started with {}: `./x cluster down` ends it",
            runs.to_args().join(" ")
        );
    }
    eprintln!(
        "x: the cluster is already up: export KUBECONFIG={}",
        state.facts.kubeconfig.display()
    );
    Ok(())
}

/// Builds everything, starts the process that holds the cluster, and passes on what it says until it is ready.
fn start(request: &Request, stays: bool) -> Result<Held> {
    if let Some(reason) = weir_lab::missing() {
        bail!("the cluster lives in network namespaces of this machine: {reason}");
    }
    packages::need(&NEEDED)?;
    parts(false)?;
    let images = with_weir(request)?;
    let options = request.options;
    eprintln!(
        "x: starting {} nodes with proxy {}",
        options.nodes,
        options.proxy.name()
    );
    let log = folder()?.join("serve.log");
    let own = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(own);
    command
        .args(["cluster", "serve"])
        .args(options.to_args())
        .args(images.iter().map(|image| format!("--image={}", image.display())))
        .args(stays.then_some("--stay"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(&log).with_context(|| format!("cannot write {}", log.display()))?);
    let mut child = command
        .spawn()
        .context("cannot start the process that holds the cluster")?;
    pass_signals(&child)?;
    let said = child.stdout.take().context("it says nothing")?;
    for line in BufReader::new(said).lines().map_while(Result::ok) {
        if line == READY {
            return Ok(Held { child: Some(child) });
        }
        shell::say(&line);
    }
    let status = child.wait()?;
    bail!("the cluster did not come up ({status}); {}", wait::tail(&log));
}

/// The images that were named, and weir's own if it is needed.
fn with_weir(request: &Request) -> Result<Vec<PathBuf>> {
    let mut images = request.images.clone();
    let is_weir = |path: &PathBuf| path.file_name().is_some_and(|name| name == image::ARCHIVE);
    if request.options.proxy == Proxy::Weir && !images.iter().any(is_weir) {
        images.push(image::archive()?);
    }
    images.iter().map(|path| Ok(path.canonicalize()?)).collect()
}

/// A Ctrl-C ends the cluster that is being started; what is read from it ends with that, and so does `up`.
fn pass_signals(child: &Child) -> Result<()> {
    let holder = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot wait for signals")?;
    thread::spawn(move || {
        for _ in signals.forever() {
            eprintln!("\nx: stopping: cleaning up");
            if let Some(holder) = holder {
                let _ = rustix::process::kill_process(holder, Signal::TERM);
            }
        }
    });
    Ok(())
}

/// Ends the cluster, and removes what a killed one left. Nothing to end is no error.
pub(super) fn down() -> Result<()> {
    let state = State::read()?;
    if let Some(state) = &state {
        let (ended, took) = shell::timed(|| {
            state.holder.signal(Signal::TERM);
            clock::wait_until(END, || !state.holder.is_alive())
        });
        if !ended {
            eprintln!("x: the cluster does not end: killing it");
            state.holder.signal(Signal::KILL);
            clock::wait_until(END, || !state.holder.is_alive());
        }
        eprintln!("x: the cluster has ended after {:.1} s", took.as_secs_f32());
    }
    State::forget();
    if weir_lab::missing().is_none() {
        weir_lab::sweep(PREFIX)?;
    }
    if state.is_none() {
        eprintln!("x: no cluster is up");
    }
    Ok(())
}
