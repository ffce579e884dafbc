//! Every script of `corpus/`, in both families; in user space always, and in the kernel as root.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use weir_packet::kernel::Kernel;
use weir_packet::node;
use weir_packet::pair::Pair;
use weir_packet::script;

fn scripts() -> Result<Vec<(String, String)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut scripts = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        scripts.push((name, fs::read_to_string(&path)?));
    }
    scripts.sort();
    Ok(scripts)
}

/// Runs them all, and then says which went wrong.
fn run_all(kernel: Option<Kernel>) -> Result<()> {
    let mut pair = Pair::new(kernel, &node::rows(1))?;
    let mut wrong = Vec::new();
    for (name, text) in scripts()? {
        for v6 in [false, true] {
            if let Err(error) = script::run(&text, &mut pair, v6) {
                wrong.push(format!("{name}: {error:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(())
}

#[test]
fn scripts_in_user_space() -> Result<()> {
    run_all(None)
}

#[test]
fn scripts_in_the_kernel() -> Result<()> {
    if !weir_lab::require_root() {
        return Ok(());
    }
    run_all(Some(Kernel::load()?))
}

/// The object as it is built asks the kernel to correct checksums; that is for kernels before 6.2.
#[test]
fn scripts_in_the_kernel_that_corrects_checksums() -> Result<()> {
    if !weir_lab::require_root() {
        return Ok(());
    }
    run_all(Some(Kernel::load_as_built()?))
}
