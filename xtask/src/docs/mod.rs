//! `docs`: renders docs/maps.md from the map definitions, which are the truth.

mod layout;
mod maps;
mod rows;

use std::fs;

use anyhow::{Context, Result, bail};

pub(crate) use maps::{Map, maps};

use crate::{source, workspace};

const MAPS: &str = "proxy-ebpf/src/maps.rs";
const PAGE: &str = "docs/maps.md";

/// What `docs` is asked.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail if a page is not up to date
    #[arg(long)]
    check: bool,
}

/// Writes the page, or compares it.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.check {
        return check();
    }
    fs::write(workspace::root().join(PAGE), page()?).with_context(|| format!("writing {PAGE}"))?;
    eprintln!("x: wrote {PAGE}");
    Ok(())
}

/// Fails if the page is not what the definitions say.
pub(crate) fn check() -> Result<()> {
    let page = page()?;
    if workspace::read(PAGE).unwrap_or_default() != page {
        bail!("{PAGE} is not up to date: run `./x docs` and commit the result");
    }
    eprintln!("x: {PAGE} is up to date");
    Ok(())
}

fn page() -> Result<String> {
    let maps = maps(&workspace::read(MAPS)?).with_context(|| format!("reading {MAPS}"))?;
    let files = source::files()?;
    let common = files
        .iter()
        .filter(|file| file.path.starts_with("proxy-common/src/") && file.is_rust());
    let mut rows = rows::Rows::default();
    for file in common {
        rows.read(&file.text)
            .with_context(|| format!("reading {}", file.path))?;
    }
    Ok(maps::render(&maps, &rows))
}
