//! The files of the work tree, and syn's view of Rust sources.

use std::fs;
use std::path::Path;

use anyhow::Result;
use syn::{Attribute, Expr, Lit, Meta};

use crate::{shell, workspace};

/// A text file of the work tree.
pub(crate) struct File {
    /// Path from the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    #[cfg(test)]
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    pub(crate) fn is_rust(&self) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|extension| extension == "rs")
    }
}

/// All text files that git tracks or would track, in order of their paths.
pub(crate) fn files() -> Result<Vec<File>> {
    let list = shell::command("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        // The tree may belong to another user: to root in a container, for example.
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .output()?;
    anyhow::ensure!(
        list.status.success(),
        "`git ls-files` failed, and it says which files are ours: {}",
        String::from_utf8_lossy(&list.stderr).trim()
    );
    let names = String::from_utf8(list.stdout)?;
    let mut files: Vec<File> = names.split_terminator('\0').filter_map(read).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    Ok(files)
}

/// `None` for a file that is no text, and for one that was deleted but is still in the index.
fn read(path: &str) -> Option<File> {
    let text = String::from_utf8(fs::read(workspace::root().join(path)).ok()?).ok()?;
    Some(File {
        path: path.to_owned(),
        text,
    })
}

/// The doc comment of an item, a line per line.
pub(crate) fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| {
        let Meta::NameValue(pair) = &attribute.meta else {
            return None;
        };
        let Expr::Lit(literal) = &pair.value else {
            return None;
        };
        let Lit::Str(text) = &literal.lit else { return None };
        pair.path.is_ident("doc").then(|| text.value().trim().to_owned())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether one of the attributes is `#[name]` or `#[name(..)]`.
pub(crate) fn has_attribute(attributes: &[Attribute], name: &str) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident(name))
}
