//! The compiler of the kernel object: a pinned nightly, or what `PROXY_EBPF_RUSTC` names.
//!
//! bpf-linker must be built against an LLVM as new as the compiler's; the compiler's own copy serves, so no LLVM is
//! installed. `PROXY_EBPF_LINKER` names a bpf-linker where that does not work.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{shell, tools, workspace};

/// The nightly for the kernel target: `-Z build-std` is not stable.
const NIGHTLY: &str = "nightly-2026-10-30";
const TARGET: &str = "bpfel-unknown-none";
/// `v3` has atomics that return the old value; debug information becomes BTF.
const FLAGS: &str = "-Ctarget-cpu=v3 -Cdebuginfo=2 -Clink-arg=--btf";

/// A compiler for the kernel target and the cargo beside it.
pub(crate) struct KernelCompiler {
    rustc: PathBuf,
    cargo: PathBuf,
    sysroot: PathBuf,
    /// A stable compiler refuses `-Z` without it.
    bootstrap: bool,
}

impl KernelCompiler {
    /// Finds the compiler; the nightly is installed if it is missing.
    pub(crate) fn find() -> Result<Self> {
        let rustc = match env::var_os("PROXY_EBPF_RUSTC").filter(|path| !path.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => nightly()?,
        };
        Self::at(rustc).context("the kernel object's compiler (PROXY_EBPF_RUSTC, or else the pinned nightly)")
    }

    fn at(rustc: PathBuf) -> Result<Self> {
        let sysroot = PathBuf::from(shell::output(Command::new(&rustc).args(["--print", "sysroot"]))?);
        let version = shell::output(Command::new(&rustc).arg("--version"))?;
        if !sysroot
            .join("lib/rustlib/src/rust/library/core/src/lib.rs")
            .exists()
        {
            bail!("{} has no library sources (Debian: rust-src)", rustc.display());
        }
        let beside = rustc.with_file_name("cargo");
        let cargo = if beside.exists() {
            beside
        } else {
            PathBuf::from("cargo")
        };
        let bootstrap = !version.contains("nightly") && !version.contains("-dev");
        Ok(Self {
            rustc,
            cargo,
            sysroot,
            bootstrap,
        })
    }

    /// `cargo VERB` for `proxy-ebpf` and the kernel target.
    pub(crate) fn cargo(&self, verb: &str) -> Result<Command> {
        let linker = self.linker()?;
        let mut command = shell::command(self.program(verb), [verb, "--package", "proxy-ebpf", "--release"]);
        command.args(["-Z", "build-std=core", "--target", TARGET]);
        command.arg("--target-dir").arg(target());
        command.env("LD_LIBRARY_PATH", self.sysroot.join("lib"));
        command.env("RUSTC", &self.rustc);
        if verb == "clippy" {
            command.env("CARGO", &self.cargo);
        }
        // The object goes into the image, and names of source files with it: the same ones wherever it is built.
        let paths = format!(
            "--remap-path-prefix={}=/weir --remap-path-prefix={}=/rust",
            workspace::root().display(),
            self.sysroot.display()
        );
        command.env(
            "RUSTFLAGS",
            format!("-Clinker={} {FLAGS} {paths}", linker.display()),
        );
        for variable in [
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTUP_TOOLCHAIN",
        ] {
            command.env_remove(variable);
        }
        if self.bootstrap {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        Ok(command)
    }

    /// Whether this compiler comes with clippy.
    pub(crate) fn has_clippy(&self) -> bool {
        self.program("clippy").exists()
    }

    fn program(&self, verb: &str) -> PathBuf {
        match verb {
            "clippy" => self.cargo.with_file_name("cargo-clippy"),
            _ => self.cargo.clone(),
        }
    }

    /// bpf-linker, built against the compiler's own LLVM.
    fn linker(&self) -> Result<PathBuf> {
        if let Some(path) = env::var_os("PROXY_EBPF_LINKER").filter(|path| !path.is_empty()) {
            return Ok(PathBuf::from(path));
        }
        let llvm = llvm(&self.sysroot.join("lib"))?;
        let prefix = workspace::tools()?.join("llvm").join(&llvm.name);
        link(&llvm.path, &prefix.join("lib/libLLVM.so"))?;
        let variant = format!("-{}", llvm.name);
        tools::ensure_with(&tools::BPF_LINKER, &variant, |command| {
            command.args([
                "--no-default-features",
                "--features",
                &format!("llvm-{}", llvm.major),
            ]);
            command.env("LLVM_PREFIX", &prefix);
        })
    }
}

/// Folder of everything built for the kernel target.
fn target() -> PathBuf {
    workspace::target().join("bpf")
}

/// Where cargo puts the kernel object.
pub(crate) fn artifact() -> PathBuf {
    target().join(TARGET).join("release/weir")
}

/// Path of the pinned nightly's rustc.
fn nightly() -> Result<PathBuf> {
    if let Some(rustc) = complete_nightly() {
        return Ok(rustc);
    }
    eprintln!(
        "x: installing Rust {NIGHTLY} for the kernel object: 250 MB to fetch, about 20 s on a fast line"
    );
    let mut install = shell::command(
        "rustup",
        ["toolchain", "install", NIGHTLY, "--profile", "minimal"],
    );
    install.args(["-c", "rust-src", "-c", "clippy", "--no-self-update"]);
    shell::run(&mut install)?;
    complete_nightly().with_context(|| {
        format!("{NIGHTLY} is still incomplete: run `rustup toolchain uninstall {NIGHTLY}` and this again")
    })
}

fn complete_nightly() -> Option<PathBuf> {
    let which = |binary: &str| {
        let mut which = shell::command("rustup", ["which", "--toolchain", NIGHTLY, binary]);
        shell::output(which.env("RUSTUP_AUTO_INSTALL", "0"))
            .ok()
            .map(PathBuf::from)
    };
    let rustc = which("rustc")?;
    let sysroot = rustc.parent()?.parent()?;
    let sources = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
    (sources.exists() && which("cargo-clippy").is_some()).then_some(rustc)
}

struct Llvm {
    path: PathBuf,
    name: String,
    major: String,
}

/// The LLVM library that the compiler in `folder` brings along.
fn llvm(folder: &Path) -> Result<Llvm> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let found = names.filter_map(|name| Some((llvm_major(&name)?, name))).max();
    let (major, name) = found.with_context(|| {
        format!(
            "no libLLVM.so.* in {}: build bpf-linker yourself and name it in PROXY_EBPF_LINKER",
            folder.display()
        )
    })?;
    Ok(Llvm {
        path: folder.join(&name),
        name,
        major,
    })
}

/// `libLLVM.so.23.1-rust-1.101.0-nightly` → `23`.
fn llvm_major(name: &str) -> Option<String> {
    let version = name.strip_prefix("libLLVM.so.")?;
    let major: String = version.chars().take_while(char::is_ascii_digit).collect();
    (!major.is_empty()).then_some(major)
}

/// Makes `at` a link to `to`, whatever an earlier run left there.
fn link(to: &Path, at: &Path) -> Result<()> {
    if fs::read_link(at).is_ok_and(|old| old == to) {
        return Ok(());
    }
    let make = || -> std::io::Result<()> {
        if let Some(folder) = at.parent() {
            fs::create_dir_all(folder)?;
        }
        if at.symlink_metadata().is_ok() {
            fs::remove_file(at)?;
        }
        symlink(to, at)
    };
    make().with_context(|| format!("linking {} to {}", at.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_major_is_read_from_the_file_name() {
        assert_eq!(
            llvm_major("libLLVM.so.23.1-rust-1.101.0-nightly").as_deref(),
            Some("23")
        );
        assert_eq!(llvm_major("libLLVM-23-rust-1.101.0-nightly.so"), None);
        assert_eq!(llvm_major("librustc_driver-8c22876555d7e18b.so"), None);
    }
}
