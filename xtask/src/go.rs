//! Go, in which Kubernetes is written: the machine's own if it is new enough, else a pinned one.
//!
//! The pinned one comes as a module, with its checksum, from where all other modules come from; the old Go of a
//! distribution is enough to fetch it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{packages, shell};

/// What `tests/cluster` asks for.
const NEEDED: (u32, u32) = (1, 26);
/// What is fetched where the machine's own is older.
const PINNED: &str = "1.26.8";

/// Path of a `go` that can build everything here.
pub(crate) fn find() -> Result<PathBuf> {
    packages::need(&["go"])
        .context("no Go, in which Kubernetes is written: install it from https://go.dev/dl")?;
    let own = packages::find("go").context("Go was installed, and is in no search path")?;
    let says = shell::output(&mut shell::command(&own, ["version"]))?;
    if version(&says).is_some_and(|version| version >= NEEDED) {
        return Ok(own);
    }
    fetch(&own).with_context(|| format!("{says} is too old, and Go {PINNED} could not be fetched"))
}

/// `(1, 26)` of `go version go1.26.8 linux/amd64`.
fn version(says: &str) -> Option<(u32, u32)> {
    let number = says
        .split_whitespace()
        .find_map(|word| word.strip_prefix("go1."))?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    Some((1, digits.parse().ok()?))
}

/// Brings the pinned one into the module cache of the machine's own.
fn fetch(own: &Path) -> Result<PathBuf> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let module = format!("golang.org/toolchain@v0.0.1-go{PINNED}.linux-{architecture}");
    let mut download = shell::command(own, ["mod", "download", "-json", &module]);
    // Outside of any module.
    download.current_dir(std::env::temp_dir()).env_remove("GOFLAGS");
    let answer: Value = serde_json::from_str(&shell::output(&mut download)?)?;
    let folder = answer.pointer("/Dir").and_then(Value::as_str);
    let folder = Path::new(folder.context("Go does not say where it put it")?);
    // A module's files are plain files.
    make_runnable(&folder.join("bin"))?;
    make_runnable(&folder.join("pkg/tool"))?;
    Ok(folder.join("bin/go"))
}

fn make_runnable(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            make_runnable(&path)?;
        } else {
            let mut permissions = fs::metadata(&path)?.permissions();
            permissions.set_mode(permissions.mode() | 0o111);
            fs::set_permissions(&path, permissions)
                .with_context(|| format!("cannot change {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn distributions_write_the_version_in_ways_of_their_own() {
        assert_eq!(version("go version go1.26.8 linux/amd64"), Some((1, 26)));
        assert_eq!(version("go version go1.19 linux/amd64"), Some((1, 19)));
        assert_eq!(version("go version go1.27rc1 linux/arm64"), Some((1, 27)));
        assert_eq!(version("go version devel"), None);
    }
}
