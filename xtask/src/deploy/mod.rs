//! `check deploy`: what a user installs is one thing, said three ways: plain manifests, kustomize, a Helm chart.
//!
//! ```text
//!  deploy/manifests, deploy/manifests/ingress ─┐
//!  … + components ─────────────────────────────┼── object by object ── the same
//!  deploy/helm/weir ── Go's template engine ───┘   with the values that say the same
//! ```

mod cases;
mod chart;
mod folders;
mod objects;
mod schema;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{image, packages, shell, workspace};
use chart::Chart;
use folders::{kustomization, with_component};
use image::Shipped;
use objects::Objects;

const BASE: &str = "deploy/manifests";
const INGRESS: &str = "deploy/manifests/ingress";
const INGRESS_BALANCED: &str = "deploy/manifests/ingress/load-balancer";
const CLEANUP: &str = "deploy/manifests/cleanup";
const KIND: &str = "deploy/kind";

/// Runs all of it; the first difference ends it.
pub(crate) fn check() -> Result<()> {
    eprintln!("\n$ cargo xtask check deploy");
    let base = kustomization(BASE)?;
    let chart = Chart::read()?;
    schema::check(&chart)?;
    let pairs = pairs(&base)?;
    let given: Vec<_> = pairs.iter().map(|pair| pair.given.clone()).collect();
    for (rendered, pair) in chart.render(&given)?.iter().zip(&pairs) {
        rendered
            .same_as(&pair.plain)
            .with_context(|| format!("the chart with {}, and {}", pair.given, pair.said))?;
        images(&pair.plain, &pair.said)?;
    }
    cases::every_value_arrives(&chart)?;
    images(&kustomization(CLEANUP)?, CLEANUP)?;
    dockerfile(
        &workspace::read("deploy/image/Dockerfile")?,
        &workspace::read("rust-toolchain.toml")?,
    )?;
    kustomize(&base)
}

/// What is said to Helm, and the same said to kustomize.
struct Pair {
    given: Value,
    said: String,
    plain: Objects,
}

fn pairs(base: &Objects) -> Result<Vec<Pair>> {
    let pair = |given: Value, bases: &[&str], components: &[&str]| -> Result<Pair> {
        let mut plain = base.clone();
        for folder in bases {
            plain.join(kustomization(folder)?)?;
        }
        for component in components {
            plain = with_component(&plain, &format!("{BASE}/{component}"))?;
        }
        let said = format!("{BASE} with {bases:?} and {components:?}");
        Ok(Pair { given, said, plain })
    };
    let scoped = [
        "ingress/components/namespaced",
        "ingress/components/default-class",
    ];
    let ingress = |more: Value| json!({"ingress": cases::enabled(more)});
    let some = |kind: &str| ingress(json!({"kind": kind, "namespaces": ["shop"], "defaultClass": true}));
    Ok(vec![
        pair(json!({}), &[], &[])?,
        pair(
            json!({"apiServer": {"host": "192.0.2.10"}}),
            &[],
            &["components/api-server"],
        )?,
        pair(
            json!({"config": {"existingConfigMap": "kube-proxy"}}),
            &[],
            &["components/kubeadm"],
        )?,
        pair(ingress(json!({})), &[INGRESS], &[])?,
        pair(ingress(json!({"kind": "Deployment"})), &[INGRESS_BALANCED], &[])?,
        pair(some("DaemonSet"), &[INGRESS], &scoped)?,
        pair(some("Deployment"), &[INGRESS_BALANCED], &scoped)?,
    ])
}

/// What `./x image` makes is what the manifests ask for.
fn images(objects: &Objects, place: &str) -> Result<()> {
    let made = Shipped::ALL.map(Shipped::image);
    for name in objects.images() {
        if !made.contains(&name) {
            bail!(
                "{place} asks for the image {name}, and `./x image` makes {}",
                made.join(", ")
            );
        }
    }
    Ok(())
}

/// The Dockerfile starts from the compiler that the work tree asks for, and keeps the binaries at the same places.
fn dockerfile(text: &str, toolchain: &str) -> Result<()> {
    let version = toolchain
        .split("channel = \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let version = version.context("rust-toolchain.toml names no channel")?;
    let mut lines = vec![format!("FROM rust:{version}-bookworm AS build")];
    for shipped in Shipped::ALL {
        let (program, place) = (shipped.program(), shipped.place());
        let stage = match shipped {
            Shipped::Agent => "build",
            Shipped::Ingress => "build-ingress",
        };
        lines.push(format!(
            "COPY --from={stage} /weir/target/image/{program} {place}"
        ));
        lines.push(format!("ENTRYPOINT [\"{place}\"]"));
    }
    for line in lines {
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
    for folder in [INGRESS, INGRESS_BALANCED] {
        build(folder)?
            .same_as(&kustomization(folder)?)
            .with_context(|| format!("what kustomize makes of {folder}, and its files"))?;
    }
    build(CLEANUP)?;
    images(&build(KIND)?, KIND)
}
