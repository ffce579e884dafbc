//! `docs`: renders docs/maps.md from the map definitions, which are the truth, and docs/parity.md from the results of
//! end-to-end tests.

mod layout;
mod maps;
mod parity;
mod rows;

use std::fs;

use anyhow::{Context, Result, bail};

pub(crate) use maps::{Map, maps};

use crate::{source, workspace};

const MAPS: &str = "proxy-ebpf/src/maps.rs";

/// A page, and what renders it.
type Page = (&'static str, fn() -> Result<String>);

const PAGES: [Page; 2] = [("docs/maps.md", map_page), ("docs/parity.md", parity::page)];

/// What `docs` is asked.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail if a page is not up to date
    #[arg(long)]
    check: bool,
}

/// Writes the pages, or compares them.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.check {
        return check();
    }
    for (path, page) in PAGES {
        fs::write(workspace::root().join(path), page()?).with_context(|| format!("writing {path}"))?;
        eprintln!("x: wrote {path}");
    }
    Ok(())
}

/// Fails if a page is not what its sources say.
pub(crate) fn check() -> Result<()> {
    for (path, page) in PAGES {
        if workspace::read(path).unwrap_or_default() != page()? {
            bail!("{path} is not up to date: run `./x docs` and commit the result");
        }
        eprintln!("x: {path} is up to date");
    }
    Ok(())
}

fn map_page() -> Result<String> {
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
