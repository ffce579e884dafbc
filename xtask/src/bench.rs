//! `bench`: builds a benchmark of `benches/` and hands over to it.

use std::env;
use std::process::Command;

use anyhow::{Result, bail};

use crate::{build, packages, shell, workspace};

/// What `bench` is asked.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The benchmark: a folder of benches/
    #[arg(default_value = "path")]
    name: String,
    /// What the benchmark itself is asked
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Builds everything and runs the benchmark.
pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = format!("benches/{}", args.name);
    let is_program = workspace::root().join(&folder).join("src/main.rs").is_file();
    if !is_program || !workspace::has_member(&folder)? {
        bail!(
            "there is no benchmark {}: {folder} is no program of the workspace",
            args.name
        );
    }
    let mut bench = shell::cargo([
        "run",
        "--release",
        "--package",
        &workspace::package_name(&folder)?,
        "--",
    ]);
    bench.args(&args.rest).env("PATH", packages::search_path());
    if args.name == "ingress" {
        prepare_ingress(&mut bench)?;
    } else {
        prepare_path(&mut bench)?;
    }
    shell::run(&mut bench)
}

/// Four nodes, two with the agent.
fn prepare_path(bench: &mut Command) -> Result<()> {
    if packages::is_root() {
        packages::need(&["ip", "nsenter", "iptables", "bpftool"])?;
    }
    build::all()?;
    bench
        .env("WEIR_BIN", workspace::agent())
        .env("WEIR_BPF_OBJECT", workspace::object());
    Ok(())
}

/// weir-ingress, unless `WEIR_INGRESS_BIN` names one, and its peers.
fn prepare_ingress(bench: &mut Command) -> Result<()> {
    if packages::is_root() {
        packages::need(&["ip", "taskset", "haproxy", "nginx", "h2load", "wrk"])?;
    }
    let binary = match env::var_os("WEIR_INGRESS_BIN") {
        Some(path) => workspace::root().join(path),
        None => build::ingress()?,
    };
    bench.env("WEIR_INGRESS_BIN", binary);
    Ok(())
}
