//! `up`, and clusters that end with the one who asked for them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::archives::{self, Archive};
use super::options::{Options, Proxy};
use super::programs::Programs;
use super::running::Parts;
use super::serve::READY;
use super::state::{self, Holder, State, folder};
use super::{cache, images, signals, wait};
use crate::image::Shipped;
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

/// Sees to all that a cluster needs of this machine: it would be a pity to learn of it after a long build.
pub(crate) fn can_start() -> Result<()> {
    packages::need(&NEEDED)?;
    packages::need(&images::NEEDED)?;
    if let Some(reason) = weir_lab::missing() {
        bail!("the cluster lives in network namespaces of this machine: {reason}");
    }
    Ok(())
}

/// Builds what is not in the cache.
pub(super) fn parts(with_e2e: bool) -> Result<Parts> {
    packages::need(&images::NEEDED)?;
    let programs = Programs::ensure(with_e2e)?;
    let images = images::ensure(&programs)?;
    Ok(Parts {
        programs,
        images,
        given: Vec::new(),
    })
}

/// Builds it, and makes room where others lie that nobody uses any more.
pub(super) fn build(with_e2e: bool) -> Result<()> {
    let parts = parts(with_e2e)?;
    let folder = workspace::cache()?.join("cluster");
    cache::prune(&folder, &parts.programs.folders())?;
    cache::prune(&folder.join("images"), &parts.images)
}

pub(super) fn up(request: &Request) -> Result<()> {
    if let Some(state) = State::read()? {
        return already(&state, request);
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

/// The cluster that is asked for is up, or another one is.
fn already(state: &State, request: &Request) -> Result<()> {
    let named = archives::read(&request.images)?;
    differ(state.facts.options, &state.facts.images, request.options, &named)?;
    if let Some(weir) = archives::weir_of(&state.facts.images) {
        eprintln!("x: its weir is image {}, from {}", weir.hash, weir.path.display());
    }
    eprintln!(
        "x: the cluster is already up: export KUBECONFIG={}",
        state.facts.kubeconfig.display()
    );
    Ok(())
}

/// An error if what runs is not what is wanted; images that are not named may be any.
fn differ(runs: Options, has: &[Archive], wanted: Options, named: &[Archive]) -> Result<()> {
    if runs != wanted {
        bail!(
            "another cluster is up, started with {}: `./x cluster down` ends it",
            runs.to_args().join(" ")
        );
    }
    for archive in named {
        if !has.iter().any(|has| has.hash == archive.hash) {
            bail!(
                "a cluster is up without {} (SHA-256 {}...), which it is to have: `./x cluster down` ends it",
                archive.path.display(),
                archive.hash
            );
        }
    }
    Ok(())
}

/// Builds everything, starts the process that holds the cluster, and passes on what it says until it is ready.
fn start(request: &Request, stays: bool) -> Result<Held> {
    can_start()?;
    let mut images = archives::read(&request.images)?;
    parts(false)?;
    let options = request.options;
    for (shipped, wanted) in [
        (Shipped::Agent, options.proxy == Proxy::Weir),
        (Shipped::Ingress, options.ingress),
    ] {
        if wanted && archives::archive_of(&images, shipped).is_none() {
            images.push(Archive::read(&image::archive(shipped)?)?);
        }
    }
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
        .args(
            images
                .iter()
                .map(|image| format!("--image={}", image.path.display())),
        )
        .args(stays.then_some("--stay"))
        .env("PATH", packages::search_path())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_image_is_another_cluster() {
        let options = |nodes| Options {
            proxy: Proxy::Weir,
            nodes,
            dual_stack: true,
            ingress: false,
        };
        let folder = std::env::temp_dir().join(format!("weir-up-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let archive = |file: &str, entrypoint: &str| {
            let path = folder.join(file);
            let image = image::archive::Image::new(image::NAME, &[entrypoint]);
            image.write(&path).unwrap();
            Archive::read(&path).unwrap()
        };
        let (old, copy, new) = (archive("a", "/a"), archive("b", "/a"), archive("c", "/c"));
        let has = [old];
        assert!(differ(options(2), &has, options(2), &[]).is_ok());
        assert!(differ(options(2), &has, options(2), &[copy]).is_ok());
        assert!(differ(options(2), &has, options(3), &[]).is_err());
        let error = differ(options(2), &has, options(2), &[new]).unwrap_err();
        assert!(error.to_string().contains("/c (SHA-256"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
