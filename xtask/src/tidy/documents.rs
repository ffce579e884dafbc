//! Rules for documents: what they point at exists, and decisions are numbered without gaps.

use std::path::Path;

use super::Finding;
use crate::source::File;

pub(super) fn check(file: &File, files: &[File]) -> Vec<Finding> {
    if Path::new(&file.path)
        .extension()
        .is_none_or(|extension| extension != "md")
    {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut in_code = false;
    for (at, line) in (1..).zip(file.text.lines()) {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for link in links(line).filter(|link| !exists(&beside(&file.path, link), files)) {
            findings.push(Finding::new(
                file,
                at,
                format!("links to {link}, which does not exist"),
            ));
        }
        // The code map and the invariants name files: stale names mislead more than none.
        if file.path == "ARCHITECTURE.md" {
            for path in named_paths(line).filter(|path| !exists(path, files)) {
                findings.push(Finding::new(
                    file,
                    at,
                    format!("names {path}, which does not exist"),
                ));
            }
        }
    }
    findings
}

/// Targets of Markdown links into the repository.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let inside = targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
    inside
        .filter_map(|target| target.split('#').next())
        .filter(|path| !path.is_empty())
}

/// What stands in backticks and looks like a path of the repository.
fn named_paths(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted.filter(|text| {
        let plain = text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        let ours = [
            "proxy-", "xtask/", "tests/", "benches/", "deploy/", "docs/", ".github/", ".ci/",
        ];
        plain && text.contains('/') && ours.iter().any(|start| text.starts_with(start))
    })
}

/// The path that a link in `document` means.
fn beside(document: &str, link: &str) -> String {
    let mut parts: Vec<&str> = document.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Whether it is a file or a folder with files.
fn exists(path: &str, files: &[File]) -> bool {
    let path = path.trim_end_matches('/');
    let folder = format!("{path}/");
    path.is_empty()
        || files
            .iter()
            .any(|file| file.path == path || file.path.starts_with(&folder))
}

/// Decision records are `docs/decisions/NNNN-title.md`, from 0001 on, none missing.
pub(super) fn decisions(files: &[File]) -> Vec<Finding> {
    let records = files
        .iter()
        .filter(|file| file.path.starts_with("docs/decisions/"));
    let mut findings = Vec::new();
    for (number, file) in (1..).zip(records) {
        let name = file.path.trim_start_matches("docs/decisions/");
        if !name.starts_with(&format!("{number:04}-")) {
            findings.push(Finding::new(
                file,
                0,
                format!("should be number {number:04}: gap, double or wrong name"),
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        let files = [
            File::new("x", ""),
            File::new("docs/maps.md", ""),
            File::new("proxy-model/src/plan.rs", ""),
        ];
        check(&File::new(path, text), &files).len()
    }

    #[test]
    fn links_lead_somewhere() {
        assert_eq!(
            findings(
                "docs/README.md",
                "[a](maps.md#flows) [b](../x) [c](https://a.b/c) [d](#here) [e](../docs)\n"
            ),
            0
        );
        assert_eq!(findings("docs/README.md", "[a](gone.md) [b](../maps.md)\n"), 2);
        assert_eq!(findings("docs/README.md", "```\n[a](gone.md)\n```\n"), 0);
    }

    #[test]
    fn the_code_map_names_what_exists() {
        assert_eq!(
            findings(
                "ARCHITECTURE.md",
                "`proxy-model/src/plan.rs`, `proxy-model/`, `a/b`, `docs/*.md`\n"
            ),
            0
        );
        assert_eq!(findings("ARCHITECTURE.md", "`proxy-model/src/plans.rs`\n"), 1);
    }

    #[test]
    fn decisions_are_numbered() {
        let list = |names: &[&str]| {
            let files: Vec<_> = names
                .iter()
                .map(|name| File::new(&format!("docs/decisions/{name}"), ""))
                .collect();
            decisions(&files).len()
        };
        assert_eq!(list(&["0001-tools.md", "0002-x.md"]), 0);
        assert_eq!(list(&["0001-tools.md", "0003-x.md"]), 1);
        assert_eq!(list(&["0001-tools.md", "0001-x.md"]), 1);
    }
}
