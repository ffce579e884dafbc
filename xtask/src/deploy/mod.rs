//! `check deploy`: what a user installs is one thing, said three ways: plain manifests, kustomize, a Helm chart.
//!
//! ```text
//!  deploy/manifests ─────────────────────────┐
//!  deploy/manifests + a component ───────────┼── object by object ── the same
//!  deploy/helm/weir ── Go's template engine ─┘   with the values that say the same
//! ```

mod chart;
mod objects;
mod schema;

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{image, packages, shell, workspace};
use chart::Chart;
use objects::Objects;

const BASE: &str = "deploy/manifests";
const CLEANUP: &str = "deploy/manifests/cleanup";
const KIND: &str = "deploy/kind";

/// Runs all of it; the first difference ends it.
pub(crate) fn check() -> Result<()> {
    eprintln!("\n$ cargo xtask check deploy");
    let base = kustomization(BASE)?;
    let chart = Chart::read()?;
    schema::check(&chart)?;
    let given = [
        json!({}),
        json!({"apiServer": {"host": "192.0.2.10"}}),
        json!({"config": {"existingConfigMap": "kube-proxy"}}),
    ];
    let plain = [
        base.clone(),
        with_component(&base, "api-server")?,
        with_component(&base, "kubeadm")?,
    ];
    for ((rendered, plain), given) in chart.render(&given)?.iter().zip(plain).zip(given) {
        rendered.same_as(&plain).with_context(|| {
            format!("the chart with {given}, and {BASE} with the component that says the same")
        })?;
    }
    chart::every_value_arrives(&chart)?;
    images(&base, "deploy/manifests")?;
    images(&kustomization(CLEANUP)?, CLEANUP)?;
    dockerfile(
        &workspace::read("deploy/image/Dockerfile")?,
        &workspace::read("rust-toolchain.toml")?,
    )?;
    kustomize(&base)
}

/// The objects of the files that a kustomization names, which are all that are in its folder.
fn kustomization(folder: &str) -> Result<Objects> {
    let list = objects::parse(&workspace::read(&format!("{folder}/kustomization.yaml"))?)?;
    let named = list.first().and_then(|list| list["resources"].as_array());
    let mut named: Vec<_> = named
        .with_context(|| format!("{folder}/kustomization.yaml lists no resources"))?
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    named.sort();
    let mut there = Vec::new();
    for entry in fs::read_dir(workspace::root().join(folder))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.extension().is_some_and(|extension| extension == "yaml") && name != "kustomization.yaml" {
            there.push(name.into_owned());
        }
    }
    there.sort();
    ensure!(
        named == there,
        "{folder}/kustomization.yaml lists {named:?}, and there are {there:?}"
    );
    let mut all = Objects::default();
    for name in named {
        all.read(&workspace::read(&format!("{folder}/{name}"))?)
            .with_context(|| format!("{folder}/{name}"))?;
    }
    Ok(all)
}

/// The base with a component's patches.
fn with_component(base: &Objects, name: &str) -> Result<Objects> {
    let folder = format!("{BASE}/components/{name}");
    let list = objects::parse(&workspace::read(&format!("{folder}/kustomization.yaml"))?)?;
    let patches = list.first().and_then(|list| list["patches"].as_array());
    let mut all = base.clone();
    for patch in patches.with_context(|| format!("{folder} patches nothing"))? {
        let file = patch["path"].as_str().context("a patch without a path")?;
        all.patch(&workspace::read(&format!("{folder}/{file}"))?)?;
    }
    Ok(all)
}

/// What `./x image` makes is what the manifests ask for.
fn images(objects: &Objects, place: &str) -> Result<()> {
    for name in objects.images() {
        if name != image::NAME {
            bail!(
                "{place} asks for the image {name}, and `./x image` makes {}",
                image::NAME
            );
        }
    }
    Ok(())
}

/// The Dockerfile starts from the compiler that the work tree asks for, and keeps the binary at the same place.
fn dockerfile(text: &str, toolchain: &str) -> Result<()> {
    let version = toolchain
        .split("channel = \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let version = version.context("rust-toolchain.toml names no channel")?;
    for line in [
        format!("FROM rust:{version}-bookworm AS build"),
        format!("COPY --from=build /weir/target/image/weir {}", image::BINARY),
        format!("ENTRYPOINT [\"{}\"]", image::BINARY),
    ] {
        ensure!(
            text.lines().any(|one| one == line),
            "deploy/image/Dockerfile has no line `{line}`"
        );
    }
    Ok(())
}

/// kustomize's own opinion, where there is a kubectl.
fn kustomize(base: &Objects) -> Result<()> {
    if packages::find("kubectl").is_none() {
        eprintln!("x: there is no kubectl here: kustomize was not asked");
        return Ok(());
    }
    let build = |folder: &str| -> Result<Objects> {
        let text = shell::output(&mut shell::command("kubectl", ["kustomize", folder]))?;
        let mut objects = Objects::default();
        objects.read(&text)?;
        Ok(objects)
    };
    build(BASE)?
        .same_as(base)
        .context("what kustomize makes of deploy/manifests, and its files")?;
    build(CLEANUP)?;
    images(&build(KIND)?, KIND)
}
