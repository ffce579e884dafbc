//! h2spec, built from the Go module in `tests/ingress/h2spec`, once for each content of that.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::image::archive::hex;
use crate::lock::Lock;
use crate::{go, shell, workspace};

const MODULE: &str = "tests/ingress/h2spec";
const PACKAGE: &str = "github.com/summerwind/h2spec/cmd/h2spec";
/// What builds the same program on every machine; no C compiler is asked for.
const FLAGS: [&str; 2] = ["-trimpath", "-buildvcs=false"];

/// Path of the program, which is built first if it is not in the cache.
pub(crate) fn ensure() -> Result<PathBuf> {
    let place = place()?;
    if place.exists() {
        return Ok(place);
    }
    // Other work trees share the cache, and would write the same draft.
    let lock = workspace::cache()?.join("ingress/h2spec.lock");
    let _lock = Lock::wait(&lock, "builds h2spec")?;
    if place.exists() {
        return Ok(place);
    }
    eprintln!("x: building h2spec: up to 30 s");
    let draft = place.with_extension("new");
    let mut build = shell::command(go::find()?, ["build", "-C", MODULE]);
    build.env("CGO_ENABLED", "0").env_remove("GOFLAGS");
    build.args(FLAGS).arg("-o").arg(&draft).arg(PACKAGE);
    shell::run(&mut build).context("building h2spec")?;
    fs::rename(&draft, &place).with_context(|| format!("cannot write {}", place.display()))?;
    Ok(place)
}

/// A path that carries the hash of the module's two files and of how it is built.
fn place() -> Result<PathBuf> {
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum"] {
        hash.update(workspace::read(&format!("{MODULE}/{file}"))?);
    }
    hash.update(FLAGS.join(" "));
    let name = format!("h2spec-{:.16}", hex(&hash.finalize()));
    let folder = workspace::cache()?.join("ingress");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_pinned() {
        let module = workspace::read(&format!("{MODULE}/go.mod")).unwrap();
        assert!(
            module.contains("github.com/summerwind/h2spec v2.2.1+incompatible"),
            "{module}"
        );
    }
}
