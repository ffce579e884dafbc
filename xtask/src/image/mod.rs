//! `image`: the container image, without Docker, and the same bytes each time (docs/decisions/0022).
//!
//! ```text
//!  kernel object ──▶ weir for musl, static ──▶ one layer with one file ──▶ target/image/weir.tar
//! ```

pub(crate) mod archive;

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{build, shell, workspace};
use archive::Image;

/// Name and tag of the image that a work tree makes; the manifests ask for the same (`./x check deploy` compares).
pub(crate) const NAME: &str = "ghcr.io/weir-project/weir:dev";
/// Where the binary is in the image: `kubectl exec ds/weir -- weir status` finds it there.
pub(crate) const BINARY: &str = "/usr/bin/weir";

/// File name of the archive.
pub(crate) const ARCHIVE: &str = "weir.tar";

/// What `image` is asked.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Only the static binary, target/image/weir
    #[arg(long)]
    binary_only: bool,
}

/// Builds what `args` ask for.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.binary_only {
        return binary().map(drop);
    }
    archive().map(drop)
}

/// Builds the image; the path of its archive.
pub(crate) fn archive() -> Result<PathBuf> {
    let binary = binary()?;
    let mut image = Image::new(NAME, &[BINARY]);
    image.file(BINARY, &binary);
    let archive = binary.with_file_name(ARCHIVE);
    image
        .write(&archive)
        .with_context(|| format!("writing {}", archive.display()))?;
    let size = fs::metadata(&archive)?.len() / 1_000_000;
    eprintln!("x: made {NAME}: {}, {size} MB", archive.display());
    eprintln!(
        "x: `docker load -i`, `ctr -n k8s.io images import` or `kind load image-archive` take it from there"
    );
    Ok(archive)
}

/// Builds the agent with no library outside of it, and copies it to the folder of the image.
pub(crate) fn binary() -> Result<PathBuf> {
    build::object()?;
    let target = format!("{}-unknown-linux-musl", env::consts::ARCH);
    ensure_target(&target)?;
    let mut cargo = shell::cargo(["build", "--profile", "dist", "--locked"]);
    cargo.args([
        "--package",
        "proxy-agent",
        "--features",
        "embed",
        "--target",
        &target,
    ]);
    cargo.env("WEIR_BPF_OBJECT", workspace::object());
    // By target: build scripts and macros are the same as in other builds.
    let variable = target.replace('-', "_");
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", variable.to_uppercase());
    cargo.env(flags, same_paths()?).env_remove("RUSTFLAGS");
    // ring's few C files include no header of a C library: musl-gcc, which cc-rs would look for, is not needed.
    let compiler = format!("CC_{variable}");
    if env::var_os(&compiler).is_none() {
        cargo.env(compiler, "cc");
    }
    shell::run(&mut cargo)?;
    let built = workspace::target().join(&target).join("dist/weir");
    let place = workspace::target().join("image/weir");
    fs::create_dir_all(place.with_file_name("")).context("making the folder of the image")?;
    fs::copy(&built, &place).with_context(|| format!("copying {}", built.display()))?;
    eprintln!("x: built {}", place.display());
    Ok(place)
}

/// The standard library for `target`, installed if rustup is there to do it.
fn ensure_target(target: &str) -> Result<()> {
    let sysroot = shell::output(&mut shell::command("rustc", ["--print", "sysroot"]))?;
    let library = PathBuf::from(sysroot)
        .join("lib/rustlib")
        .join(target)
        .join("lib");
    if library.exists() {
        return Ok(());
    }
    eprintln!("x: installing Rust's library for {target}: 35 MB to fetch");
    shell::run(&mut shell::command("rustup", ["target", "add", target])).with_context(|| {
        format!("the compiler has no library for {target}: install it, or use rustup (https://rustup.rs)")
    })
}

/// Messages of panics name source files: the same ones wherever the work tree is.
fn same_paths() -> Result<String> {
    let cargo = match env::var_os("CARGO_HOME") {
        Some(path) => PathBuf::from(path),
        None => env::home_dir()
            .context("neither CARGO_HOME nor HOME is set")?
            .join(".cargo"),
    };
    let from = [(workspace::root().to_owned(), "/weir"), (cargo, "/cargo")];
    let flags = from.map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display()));
    Ok(flags.join(" "))
}
