//! `bench`: builds a benchmark of `benches/` and hands over to it.

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
    if !workspace::has_member(&folder)? {
        bail!(
            "there is no benchmark {}: {folder} is not a member of the workspace",
            args.name
        );
    }
    if packages::is_root() {
        packages::need(&["ip", "nsenter", "iptables", "bpftool"])?;
    }
    build::all()?;
    let mut bench = shell::cargo([
        "run",
        "--release",
        "--package",
        &workspace::package_name(&folder)?,
        "--",
    ]);
    bench.args(&args.rest).env("PATH", packages::search_path());
    bench
        .env("WEIR_BIN", workspace::agent())
        .env("WEIR_BPF_OBJECT", workspace::object());
    shell::run(&mut bench)
}
