//! `image`: the container images, without Docker, and the same bytes each time (docs/decisions/0022, 0041).
//!
//! ```text
//!  kernel object ──▶ weir, static ─────────▶ one layer with one file ──▶ target/image/weir.tar
//!                    weir-ingress, static ─▶ one layer with one file ──▶ target/image/weir-ingress.tar
//! ```

pub(crate) mod archive;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::{build, shell, workspace};
use archive::Image;

/// Name and tag of the agent's image that a work tree makes; the manifests ask for the same (`./x check deploy` compares).
pub(crate) const NAME: &str = "ghcr.io/weir-project/weir:dev";
/// The ingress's.
const INGRESS_NAME: &str = "ghcr.io/weir-project/weir-ingress:dev";
/// Who runs the ingress if a pod does not say: nobody whom other images use.
const INGRESS_USER: &str = "65443:65443";

/// A program that has an image of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Shipped {
    /// The node's agent
    Agent,
    /// The ingress
    Ingress,
}

impl Shipped {
    pub(crate) const ALL: [Self; 2] = [Self::Agent, Self::Ingress];

    /// Name and tag of its image.
    pub(crate) fn image(self) -> &'static str {
        match self {
            Self::Agent => NAME,
            Self::Ingress => INGRESS_NAME,
        }
    }

    /// Name of the binary.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Agent => "weir",
            Self::Ingress => "weir-ingress",
        }
    }

    /// Where the binary is in the image: `kubectl exec ds/weir -- weir status` finds it there.
    pub(crate) fn place(self) -> &'static str {
        match self {
            Self::Agent => "/usr/bin/weir",
            Self::Ingress => "/usr/bin/weir-ingress",
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Agent => "proxy-agent",
            Self::Ingress => "proxy-ingress",
        }
    }

    /// The agent needs nothing of a C library. The ingress's TLS does, and its threads need an allocator that knows of threads:
    /// glibc's, which the headers are of that it is compiled with.
    fn target(self) -> String {
        let library = match self {
            Self::Agent => "musl",
            Self::Ingress => "gnu",
        };
        format!("{}-unknown-linux-{library}", env::consts::ARCH)
    }
}

/// What `image` is asked.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// The programs whose images are made; all if none is named
    programs: Vec<Shipped>,
    /// Only the static binaries, target/image/weir and so on
    #[arg(long)]
    binary_only: bool,
}

/// Builds what `args` ask for.
pub(crate) fn run(args: &Args) -> Result<()> {
    let named = |shipped: &Shipped| args.programs.is_empty() || args.programs.contains(shipped);
    for shipped in Shipped::ALL.into_iter().filter(named) {
        if args.binary_only {
            binary(shipped)?;
        } else {
            archive(shipped)?;
        }
    }
    Ok(())
}

/// Builds an image; the path of its archive.
pub(crate) fn archive(shipped: Shipped) -> Result<PathBuf> {
    let binary = binary(shipped)?;
    let (name, place) = (shipped.image(), shipped.place());
    let mut image = Image::new(name, &[place]);
    match shipped {
        Shipped::Agent => image.file(place, &binary),
        Shipped::Ingress => {
            image = image.user(INGRESS_USER);
            image.capable(place, &binary, archive::NET_BIND_SERVICE);
        }
    }
    let archive = binary.with_extension("tar");
    image
        .write(&archive)
        .with_context(|| format!("writing {}", archive.display()))?;
    let size = fs::metadata(&archive)?.len() / 1_000_000;
    eprintln!("x: made {name}: {}, {size} MB", archive.display());
    eprintln!(
        "x: `docker load -i`, `ctr -n k8s.io images import` or `kind load image-archive` take it from there"
    );
    Ok(archive)
}

/// Builds a program with no library outside of it, and copies it to the folder of the images.
pub(crate) fn binary(shipped: Shipped) -> Result<PathBuf> {
    let target = shipped.target();
    let mut cargo = shell::cargo(["build", "--profile", "dist", "--locked"]);
    cargo.args([
        "--package",
        shipped.package(),
        "--bin",
        shipped.program(),
        "--target",
        &target,
    ]);
    let mut flags = same_paths()?;
    let variable = target.replace('-', "_");
    match shipped {
        Shipped::Agent => {
            build::object()?;
            ensure_target(&target)?;
            of_agent(&mut cargo, &variable);
        }
        Shipped::Ingress => flags.push_str(" -C target-feature=+crt-static"),
    }
    // By target: build scripts and macros are the same as in other builds.
    let all = format!("CARGO_TARGET_{}_RUSTFLAGS", variable.to_uppercase());
    cargo.env(all, flags).env_remove("RUSTFLAGS");
    shell::run(&mut cargo)?;
    let program = shipped.program();
    let built = workspace::target().join(&target).join("dist").join(program);
    let place = workspace::target().join("image").join(program);
    fs::create_dir_all(place.with_file_name("")).context("making the folder of the image")?;
    fs::copy(&built, &place).with_context(|| format!("copying {}", built.display()))?;
    eprintln!("x: built {}", place.display());
    Ok(place)
}

fn of_agent(cargo: &mut Command, variable: &str) {
    cargo.args(["--features", "embed"]);
    cargo.env("WEIR_BPF_OBJECT", workspace::object());
    // ring's few C files include no header of a C library: musl-gcc, which cc-rs would look for, is not needed.
    let compiler = format!("CC_{variable}");
    if env::var_os(&compiler).is_none() {
        cargo.env(compiler, "cc");
    }
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

/// Messages of panics name source files: the same ones on all machines. Those of the work tree are named from its root on; a flag
/// that named the work tree would have all dependencies compiled anew for each new one.
fn same_paths() -> Result<String> {
    let cargo = match env::var_os("CARGO_HOME") {
        Some(path) => PathBuf::from(path),
        None => env::home_dir()
            .context("neither CARGO_HOME nor HOME is set")?
            .join(".cargo"),
    };
    Ok(format!("--remap-path-prefix={}=/cargo", cargo.display()))
}
