//! Our own rules, the ones that no other tool knows. CONTRIBUTING.md gives the reason for each.

mod documents;
mod hard_cases;
mod rust;
mod text;

use anyhow::{Result, bail};

use crate::docs;
use crate::source::{self, File};

/// Something that a rule does not like.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Finding {
    path: String,
    /// 0: the whole file.
    line: usize,
    what: String,
}

impl Finding {
    fn new(file: &File, line: usize, what: impl Into<String>) -> Self {
        Self {
            path: file.path.clone(),
            line,
            what: what.into(),
        }
    }
}

/// Looks at every file of the work tree.
pub(crate) fn run() -> Result<()> {
    eprintln!("\n$ cargo xtask check tidy");
    let files = source::files()?;
    let mut findings = Vec::new();
    for file in &files {
        findings.extend(text::check(file));
        if file.is_rust() {
            findings.extend(rust::check(file));
        }
        findings.extend(documents::check(file, &files));
        findings.extend(maps(file));
    }
    findings.extend(documents::decisions(&files));
    findings.extend(hard_cases::check(&files));
    findings.sort();
    for Finding { path, line, what } in &findings {
        eprintln!("{path}:{line}: {what}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    eprintln!("x: {} files are tidy", files.len());
    Ok(())
}

/// Who deletes this row? Every map must answer.
fn maps(file: &File) -> Vec<Finding> {
    if file.path != "proxy-ebpf/src/maps.rs" {
        return Vec::new();
    }
    let Ok(maps) = docs::maps(&file.text) else {
        return Vec::new();
    };
    let poor = maps.iter().filter(|map| !map.missing_facts().is_empty());
    let finding = |map: &docs::Map| {
        let missing = map.missing_facts().join(", ");
        Finding::new(
            file,
            0,
            format!("the comment of {} does not say: {missing}", map.name),
        )
    };
    poor.map(finding).collect()
}
