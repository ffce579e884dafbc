//! Folders of manifests as kustomize reads them, as far as ours go: lists of files and folders, and components that patch.

use std::path::Path;

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::objects::{self, Objects};
use crate::workspace;

/// The objects of what a kustomization names, which is all that is in its folder.
pub(super) fn kustomization(folder: &str) -> Result<Objects> {
    let list = list_of(folder)?;
    let mut named = texts(&list, "resources")
        .with_context(|| format!("{folder}/kustomization.yaml lists no resources"))?;
    named.sort();
    let (files, folders): (Vec<_>, Vec<_>) = named
        .into_iter()
        .partition(|name| Path::new(name).extension().is_some_and(|end| end == "yaml"));
    let there = yaml_files(folder)?;
    ensure!(
        files == there,
        "{folder}/kustomization.yaml lists {files:?}, and there are {there:?}"
    );
    let mut all = Objects::default();
    for name in files {
        all.read(&workspace::read(&format!("{folder}/{name}"))?)
            .with_context(|| format!("{folder}/{name}"))?;
    }
    for other in folders {
        all.join(kustomization(&below(folder, &other))?)?;
    }
    Ok(all)
}

/// Objects with what a component adds and patches.
pub(super) fn with_component(base: &Objects, folder: &str) -> Result<Objects> {
    let list = list_of(folder)?;
    let mut all = base.clone();
    for name in texts(&list, "resources").unwrap_or_default() {
        all.read(&workspace::read(&format!("{folder}/{name}"))?)
            .with_context(|| format!("{folder}/{name}"))?;
    }
    let patches = list.get("patches").and_then(Value::as_array);
    for patch in patches.with_context(|| format!("{folder} patches nothing"))? {
        let file = patch.get("path").and_then(Value::as_str);
        let file = format!("{folder}/{}", file.context("a patch without a path")?);
        let text = workspace::read(&file)?;
        match patch.get("target") {
            None => all.patch(&text),
            Some(target) => all.edit(target, &text),
        }
        .with_context(|| file)?;
    }
    Ok(all)
}

fn list_of(folder: &str) -> Result<Value> {
    let text = workspace::read(&format!("{folder}/kustomization.yaml"))?;
    let list = objects::parse(&text)?.pop();
    list.with_context(|| format!("{folder}/kustomization.yaml is empty"))
}

fn texts(list: &Value, field: &str) -> Option<Vec<String>> {
    let texts = list.get(field)?.as_array()?.iter().filter_map(Value::as_str);
    Some(texts.map(str::to_owned).collect())
}

fn yaml_files(folder: &str) -> Result<Vec<String>> {
    let mut there = Vec::new();
    for entry in fs::read_dir(workspace::root().join(folder))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.extension().is_some_and(|extension| extension == "yaml") && name != "kustomization.yaml" {
            there.push(name.into_owned());
        }
    }
    there.sort();
    Ok(there)
}

/// A folder that is named from another one.
fn below(folder: &str, other: &str) -> String {
    let (mut folder, mut other) = (folder, other);
    while let Some(rest) = other.strip_prefix("../") {
        folder = folder.rsplit_once('/').map_or("", |(above, _)| above);
        other = rest;
    }
    format!("{folder}/{other}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_named_from_each_other() {
        assert_eq!(below("a/b", "c"), "a/b/c");
        assert_eq!(below("a/b/c", "../d"), "a/b/d");
        assert_eq!(below("a/b/c", "../../d"), "a/d");
    }
}
