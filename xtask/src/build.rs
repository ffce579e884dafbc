//! `build`: first the kernel object, then the agent that carries it.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::kernel_compiler::{self, KernelCompiler};
use crate::{shell, workspace};

/// What `build` is asked.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Only the kernel object, target/weir.bpf.o
    #[arg(long)]
    ebpf_only: bool,
}

/// Builds what `args` ask for.
pub(crate) fn run(args: &Args) -> Result<()> {
    object()?;
    if args.ebpf_only {
        eprintln!("x: built {}", workspace::object().display());
        return Ok(());
    }
    let mut agent = shell::cargo([
        "build",
        "--release",
        "--package",
        "proxy-agent",
        "--features",
        "embed",
    ]);
    shell::run(agent.env("WEIR_BPF_OBJECT", workspace::object()))?;
    eprintln!("x: built {}", workspace::agent().display());
    Ok(())
}

/// Builds the kernel object and the agent.
pub(crate) fn all() -> Result<()> {
    run(&Args::default())
}

/// Builds weir-ingress as it is shipped, but for this machine's C library; the path of the binary.
pub(crate) fn ingress() -> Result<PathBuf> {
    let mut cargo = shell::cargo(["build", "--profile", "dist", "--package", "proxy-ingress"]);
    shell::run(cargo.args(["--bin", "weir-ingress"]))?;
    Ok(workspace::target().join("dist/weir-ingress"))
}

/// A program beside the agent: `weir-ingress`, or `weir-web`, which stands behind it and in front of it in tests. One that was built
/// elsewhere is named by `WEIR_INGRESS_BIN` or `WEIR_WEB_BIN`.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let variable = format!("{}_BIN", name.replace('-', "_").to_uppercase());
    if let Some(path) = env::var_os(&variable).map(PathBuf::from) {
        ensure!(path.is_file(), "{variable}: {} is missing", path.display());
        return path
            .canonicalize()
            .with_context(|| format!("cannot find {}", path.display()));
    }
    shell::run(&mut of_program(name))?;
    Ok(workspace::target().join("release").join(name))
}

/// What builds a program.
pub(crate) fn of_program(name: &str) -> Command {
    let package = match name {
        "weir-ingress" => "proxy-ingress",
        name => name,
    };
    shell::cargo(["build", "--release", "--package", package, "--bin", name])
}

/// Builds the kernel object.
pub(crate) fn object() -> Result<()> {
    let compiler = KernelCompiler::find()?;
    shell::run(&mut compiler.cargo("build")?)?;
    publish().with_context(|| format!("copying the kernel object to {}", workspace::object().display()))
}

/// Copies the object to its place, unless it is there already: a new time stamp would rebuild the agent.
fn publish() -> Result<()> {
    let new = fs::read(kernel_compiler::artifact())?;
    let place = workspace::object();
    if fs::read(&place).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let draft = place.with_extension("o.new");
    fs::write(&draft, new)?;
    Ok(fs::rename(draft, place)?)
}
