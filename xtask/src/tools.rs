//! Tools from crates.io, pinned, built once into the cache.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{packages, shell, workspace};

/// A tool and how to build it.
pub(crate) struct Tool {
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    pub(crate) binary: &'static str,
    /// What is said before it is built.
    pub(crate) takes: &'static str,
}

pub(crate) const CARGO_DENY: Tool = Tool {
    package: "cargo-deny",
    version: "0.20.2",
    binary: "cargo-deny",
    takes: "about a minute",
};
pub(crate) const TYPOS: Tool = Tool {
    package: "typos-cli",
    version: "1.52.0",
    binary: "typos",
    takes: "about a minute",
};
pub(crate) const BPF_LINKER: Tool = Tool {
    package: "bpf-linker",
    version: "0.13.0",
    binary: "bpf-linker",
    takes: "about a minute",
};

/// Path of the tool, which is built first if it is not there.
pub(crate) fn ensure(tool: &Tool) -> Result<PathBuf> {
    ensure_with(tool, "", |_| {})
}

/// The same for a tool whose build depends on more than its version: `variant` says on what.
///
/// A folder for each version and variant. Cargo puts the binary there last, so an interrupted build is taken up again,
/// with the crates that are done.
pub(crate) fn ensure_with(tool: &Tool, variant: &str, prepare: impl FnOnce(&mut Command)) -> Result<PathBuf> {
    let root = workspace::tools()?.join(format!("{}-{}{variant}", tool.package, tool.version));
    let binary = root.join("bin").join(tool.binary);
    if binary.exists() {
        return Ok(binary);
    }
    packages::need(&["cc", "g++"])?;
    eprintln!(
        "x: building {} {} into {}: {}",
        tool.package,
        tool.version,
        root.display(),
        tool.takes
    );
    let mut command = shell::cargo(["install", "--quiet", "--locked", "--force", "--debug", "--root"]);
    command.arg(&root).arg("--target-dir").arg(root.join("build"));
    command.arg(format!("{}@{}", tool.package, tool.version));
    // Unoptimised they build in a third of the time, and each runs for a second or two.
    command.env("CARGO_PROFILE_DEV_DEBUG", "0");
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        command.env_remove(variable);
    }
    prepare(&mut command);
    shell::run(&mut command)?;
    // Hundreds of megabytes that nobody needs again; a failure to remove them is no failure of the build.
    let _ = fs::remove_dir_all(root.join("build"));
    Ok(binary)
}
