//! `up`, and clusters that end with the one who asked for them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::options::{Options, Proxy};
use super::programs::Programs;
use super::running::Parts;
use super::serve::READY;
use super::state::{self, Holder, State, folder};
use super::{cache, images, signals, wait};
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
    holder: Holder,
}

impl Held {
    /// Leaves the cluster to `down`.
    fn leave(mut self) {
        signals::leave_cluster();
        self.child = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It waits for this pipe to close.
            drop(child.stdin.take());
            let _ = child.wait();
            State::forget(self.holder);
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
    // The log of a cluster that is being started stays whole.
    drop(state::lock()?);
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
    let holder = Holder::of(child.id()).context("the process that holds the cluster has ended at once")?;
    signals::end_cluster(holder)?;
    let said = child.stdout.take().context("it says nothing")?;
    for line in BufReader::new(said).lines().map_while(Result::ok) {
        if line == READY {
            return Ok(Held {
                child: Some(child),
                holder,
            });
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
