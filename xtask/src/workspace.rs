//! Where things are in the work tree.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Cargo's output folder.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Tools built for this repository: `WEIR_TOOLS`, else a folder of the cache.
pub(crate) fn tools() -> Result<PathBuf> {
    match std::env::var_os("WEIR_TOOLS") {
        Some(dir) => Ok(root().join(dir)),
        None => Ok(cache()?.join("tools")),
    }
}

/// What takes long to build and serves every work tree of this user: `WEIR_CACHE`, else the user's cache folder.
pub(crate) fn cache() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("WEIR_CACHE") {
        return Ok(root().join(dir));
    }
    let user = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) => PathBuf::from(dir),
        None => std::env::home_dir()
            .context("no folder for the cache: set HOME, XDG_CACHE_HOME or WEIR_CACHE")?
            .join(".cache"),
    };
    Ok(user.join("weir"))
}

/// The kernel object that `build` makes.
pub(crate) fn object() -> PathBuf {
    target().join("weir.bpf.o")
}

/// The agent that `build` makes.
pub(crate) fn agent() -> PathBuf {
    target().join("release/weir")
}

/// Reads a file of the work tree.
pub(crate) fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(root().join(path)).with_context(|| format!("reading {path}"))
}

/// Whether `folder` is a member of the workspace.
pub(crate) fn has_member(folder: &str) -> Result<bool> {
    Ok(is_member(&read("Cargo.toml")?, folder))
}

fn is_member(manifest: &str, folder: &str) -> bool {
    let list = manifest.split("\nmembers = [").nth(1);
    list.and_then(|rest| rest.split(']').next())
        .is_some_and(|list| list.contains(&format!("\"{folder}\"")))
}

/// The name of the package in `folder`.
pub(crate) fn package_name(folder: &str) -> Result<String> {
    let manifest = read(&format!("{folder}/Cargo.toml"))?;
    manifest
        .lines()
        .find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .map(str::to_owned)
        .with_context(|| format!("{folder}/Cargo.toml names no package"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str =
        "[workspace]\nmembers = [\n  \"xtask\",\n  \"tests/node\",\n]\ndefault-members = [\"other\"]\n";

    #[test]
    fn only_members_count() {
        assert!(is_member(MANIFEST, "tests/node"));
        assert!(!is_member(MANIFEST, "tests"));
        assert!(!is_member(MANIFEST, "other"));
    }
}
