//! `check`: everything that is known without running a test.

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::kernel_compiler::KernelCompiler;
use crate::{deploy, docs, shell, tidy, tools};

/// What `check` is asked.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// The checks to run; all if none is named
    checks: Vec<Check>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Check {
    /// The sources are formatted
    Fmt,
    /// Our own rules: sizes, documents, unsafe code (CONTRIBUTING.md)
    Tidy,
    /// Spelling
    Typos,
    /// Licences, sources and bans of the crates that we use
    Deny,
    /// Lints, of the kernel programs too
    Clippy,
    /// Doc comments have no broken link, and docs/maps.md is up to date
    Docs,
    /// Manifests, kustomize and the Helm chart say the same (fetches Go where it is missing)
    Deploy,
    /// Known weaknesses of the crates that we use; fetches a database, so it runs only when named
    Advisories,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Tidy => "tidy",
            Self::Typos => "typos",
            Self::Deny => "deny",
            Self::Clippy => "clippy",
            Self::Docs => "docs",
            Self::Deploy => "deploy",
            Self::Advisories => "advisories",
        }
    }

    fn run(self) -> Result<()> {
        match self {
            Self::Fmt => shell::run(&mut shell::cargo(["fmt", "--all", "--", "--check"])),
            Self::Tidy => tidy::run(),
            Self::Typos => typos(),
            Self::Deny => deny(&["bans", "licenses", "sources"]),
            Self::Advisories => deny(&["advisories"]),
            Self::Clippy => clippy(),
            Self::Docs => documents(),
            Self::Deploy => deploy::check(),
        }
    }
}

/// Runs the checks, all of them, and says which failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let all = Check::value_variants().iter().copied();
    let chosen = all.filter(|check| match args.checks.as_slice() {
        // A new advisory is no fault of a change, and its database is not everywhere in reach.
        [] => *check != Check::Advisories,
        named => named.contains(check),
    });
    let mut summary = Vec::new();
    let mut failed = false;
    for check in chosen {
        let (result, took) = shell::timed(|| check.run());
        if let Err(error) = &result {
            eprintln!("x: {}: {error:#}", check.name());
            failed = true;
        }
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        summary.push(format!(
            "{:<11}{verdict:<8}{:>5.1} s",
            check.name(),
            took.as_secs_f32()
        ));
    }
    shell::say(&format!("\n{}", summary.join("\n")));
    if failed {
        bail!("a check failed");
    }
    Ok(())
}

fn typos() -> Result<()> {
    let typos = tools::ensure(&tools::TYPOS)?;
    shell::run(&mut shell::command(
        typos,
        ["--config", "typos.toml", "--hidden", "."],
    ))
}

fn deny(what: &[&str]) -> Result<()> {
    let deny = tools::ensure(&tools::CARGO_DENY)?;
    shell::run(shell::command(deny, ["--workspace", "--locked", "check"]).args(what))
}

/// One part failing does not hide what the other has to say.
fn clippy() -> Result<()> {
    let host = host_clippy();
    kernel_clippy().and(host)
}

fn host_clippy() -> Result<()> {
    let mut host = shell::cargo([
        "clippy",
        "--workspace",
        "--exclude",
        "proxy-ebpf",
        "--all-targets",
    ]);
    shell::run(host.args(["--keep-going", "--", "-D", "warnings"]))
}

fn kernel_clippy() -> Result<()> {
    let compiler = KernelCompiler::find()?;
    if !compiler.has_clippy() {
        eprintln!("x: the compiler in PROXY_EBPF_RUSTC has no clippy: proxy-ebpf is not linted");
        return Ok(());
    }
    let mut kernel = compiler.cargo("clippy")?;
    shell::run(kernel.args(["--", "-D", "warnings"]))
}

fn documents() -> Result<()> {
    let mut doc = shell::cargo(["doc", "--workspace", "--exclude", "proxy-ebpf", "--no-deps"]);
    doc.args(["--keep-going", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings");
    shell::run(&mut doc)?;
    docs::check()
}
