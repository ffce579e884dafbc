//! The programs of a cluster, built from the Go modules in `tests/cluster`, once for each content of those.
//!
//! A module's folder in the cache carries the hash of its sources, of the Go that builds it and of how it is built. A
//! program appears there last, so an interrupted build is taken up again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::cache;
use crate::image::archive::hex;
use crate::lock::Lock;
use crate::{go, shell, workspace};

/// What builds the same program out of the same sources on every machine; no C compiler is asked for.
const FLAGS: [&str; 2] = ["-trimpath", "-buildvcs=false"];

/// A program of one of the modules.
struct Program {
    name: &'static str,
    /// Folder in `tests/cluster`.
    module: &'static str,
    package: &'static str,
    /// Whether it is the test binary of its package.
    is_test: bool,
    /// Seconds on two slow cores when nothing is built yet, to say before.
    takes: u32,
}

const fn kubernetes(name: &'static str, package: &'static str, takes: u32) -> Program {
    Program {
        name,
        module: "kubernetes",
        package,
        is_test: false,
        takes,
    }
}

/// In this order, as the first one brings what the others share.
const CLUSTER: [Program; 10] = [
    kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", 210),
    kubernetes(
        "kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        70,
    ),
    kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", 10),
    kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet", 40),
    kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", 20),
    kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl", 30),
    kubernetes("agnhost", "k8s.io/kubernetes/test/images/agnhost", 10),
    kubernetes(
        "regression-issue-74839",
        "k8s.io/kubernetes/test/images/regression-issue-74839",
        5,
    ),
    kubernetes("etcd", "go.etcd.io/etcd/server/v3", 10),
    Program {
        name: "coredns",
        module: "coredns",
        package: "github.com/coredns/coredns",
        is_test: false,
        takes: 150,
    },
];

/// Kubernetes' end-to-end tests, and what runs them in parallel.
const E2E: [Program; 2] = [
    Program {
        is_test: true,
        ..kubernetes("e2e.test", "k8s.io/kubernetes/test/e2e", 200)
    },
    kubernetes("ginkgo", "github.com/onsi/ginkgo/v2/ginkgo", 10),
];

/// The built programs.
pub(super) struct Programs {
    kubernetes: PathBuf,
    coredns: PathBuf,
}

impl Programs {
    /// Builds what is not in the cache.
    pub(super) fn ensure(with_e2e: bool) -> Result<Self> {
        let programs = Self {
            kubernetes: folder("kubernetes", &compiler("kubernetes")?)?,
            coredns: folder("coredns", &compiler("coredns")?)?,
        };
        cache::mark_used(&programs.folders());
        if programs.missing(with_e2e).is_empty() {
            return Ok(programs);
        }
        // Other work trees share the cache, and would write the same drafts.
        let lock = workspace::cache()?.join("cluster/programs.lock");
        let _lock = Lock::wait(&lock, "builds programs of the cluster")?;
        let missing = programs.missing(with_e2e);
        for (at, program) in (1..).zip(&missing) {
            eprintln!(
                "x: building {} ({at} of {}): up to {} s",
                program.name,
                missing.len(),
                program.takes
            );
            build(program, &programs.path(program.name))?;
        }
        Ok(programs)
    }

    fn missing(&self, with_e2e: bool) -> Vec<&'static Program> {
        let e2e = E2E.iter().filter(|_| with_e2e);
        let all = CLUSTER.iter().chain(e2e);
        all.filter(|program| !self.path(program.name).exists()).collect()
    }

    /// The modules' folders in the cache.
    pub(super) fn folders(&self) -> [PathBuf; 2] {
        [self.kubernetes.clone(), self.coredns.clone()]
    }

    /// Where a program is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        let folder = if name == "coredns" {
            &self.coredns
        } else {
            &self.kubernetes
        };
        folder.join("bin").join(name)
    }

    /// A command that runs a program.
    pub(super) fn command(&self, name: &str) -> Command {
        Command::new(self.path(name))
    }
}

/// `v1.36.3`, as `go.mod` has it.
pub(super) fn version(module: &str, dependency: &str) -> Result<String> {
    let text = workspace::read(&format!("tests/cluster/{module}/go.mod"))?;
    find_version(&text, dependency)
        .map(str::to_owned)
        .with_context(|| format!("tests/cluster/{module}/go.mod requires no {dependency}"))
}

/// The folder with the sources of a module's dependency.
pub(super) fn sources(module: &str, dependency: &str) -> Result<PathBuf> {
    let module = format!("tests/cluster/{module}");
    let mut go = shell::command(go::find()?, ["list", "-C", &module]);
    Ok(shell::output(go.args(["-m", "-f", "{{.Dir}}", dependency]))?.into())
}

fn find_version<'a>(go_mod: &'a str, dependency: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let line = line.trim().trim_start_matches("require ");
        line.strip_prefix(dependency)?
            .strip_prefix(' ')?
            .split(' ')
            .next()
            .filter(|word| word.starts_with('v'))
    })
}

/// `go version go1.26.8 linux/amd64`: the Go that builds a module, which may be another one than the machine's own.
fn compiler(module: &str) -> Result<String> {
    let module = workspace::root().join("tests/cluster").join(module);
    shell::output(shell::command(go::find()?, ["version"]).current_dir(module))
}

/// The module's folder in the cache.
fn folder(module: &str, compiler: &str) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    let sources = fs::read_dir(workspace::root().join("tests/cluster").join(module))
        .with_context(|| format!("cannot read tests/cluster/{module}"))?;
    let is_source = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| ["go", "mod", "sum"].contains(&extension))
    };
    let files = sources.flatten().map(|entry| entry.path());
    let mut files: Vec<_> = files.filter(is_source).collect();
    files.sort();
    for file in files {
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    hash.update(compiler);
    hash.update(FLAGS.join(" "));
    hash.update(linker_flags()?);
    let name = format!("{module}-{:.16}", hex(&hash.finalize()));
    Ok(workspace::cache()?.join("cluster").join(name))
}

/// Small programs that know their version: without, a kubelet calls itself v0.0.0.
fn linker_flags() -> Result<String> {
    let version = version("kubernetes", "k8s.io/kubernetes")?;
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let facts = [
        ("gitVersion", version.as_str()),
        ("gitMajor", major),
        ("gitMinor", minor),
        ("gitTreeState", "clean"),
        ("gitCommit", "unknown"),
        ("buildDate", "1970-01-01T00:00:00Z"),
    ];
    let facts = facts.map(|(name, value)| format!("-X k8s.io/component-base/version.{name}={value}"));
    Ok(format!("-s -w {}", facts.join(" ")))
}

fn build(program: &Program, target: &Path) -> Result<()> {
    let folder = target.parent().context("a program has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let draft = target.with_extension("new");
    let (result, took) = shell::timed(|| shell::run(&mut go_build(program, &draft)?));
    result.with_context(|| format!("building {}", program.name))?;
    let size = fs::metadata(&draft)?.len();
    fs::rename(&draft, target)?;
    eprintln!(
        "x: built {} in {:.0} s: {} MB",
        program.name,
        took.as_secs_f32(),
        size / 1_000_000
    );
    Ok(())
}

fn go_build(program: &Program, draft: &Path) -> Result<Command> {
    let (verb, only_compile): (_, &[_]) = if program.is_test {
        // Vetting others' sources takes longer than building them.
        ("test", &["-c", "-vet=off"])
    } else {
        ("build", &[])
    };
    let module = format!("tests/cluster/{}", program.module);
    let mut go = shell::command(go::find()?, [verb, "-C", &module]);
    go.args(only_compile)
        .env("CGO_ENABLED", "0")
        // What a developer has set for himself would build another program.
        .env_remove("GOFLAGS");
    go.args(FLAGS).args(["-ldflags", &linker_flags()?, "-o"]);
    go.arg(draft).arg(program.package);
    Ok(go)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_required_one() {
        let text = "module a\n\nrequire k8s.io/kubernetes v1.36.3\n\nrequire (\n\tb.org/c v3.6.8 // indirect\n)\n\nreplace k8s.io/api => k8s.io/api v0.36.3\n";
        assert_eq!(find_version(text, "k8s.io/kubernetes"), Some("v1.36.3"));
        assert_eq!(find_version(text, "b.org/c"), Some("v3.6.8"));
        assert_eq!(find_version(text, "k8s.io/api"), None);
        assert_eq!(find_version(text, "k8s.io/kube"), None);
    }

    #[test]
    fn the_modules_of_the_tree_name_their_versions() {
        assert!(version("kubernetes", "k8s.io/kubernetes").is_ok_and(|version| version.starts_with("v1.")));
        assert!(version("coredns", "github.com/coredns/coredns").is_ok());
    }

    #[test]
    fn a_folder_carries_the_hash_of_its_content() {
        let name = folder("kubernetes", "go1").unwrap();
        assert_ne!(name, folder("coredns", "go1").unwrap());
        assert_ne!(name, folder("kubernetes", "go2").unwrap());
        assert_eq!(name, folder("kubernetes", "go1").unwrap());
    }
}
