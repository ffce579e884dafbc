//! Rules for every text file.

use std::path::Path;

use super::Finding;
use crate::source::File;

/// Written in two parts, or this file would break its own rule.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

pub(super) fn check(file: &File) -> Vec<Finding> {
    // Not ours to format.
    if file.path.starts_with("LICENSE")
        || ["Cargo.lock", "go.sum"]
            .iter()
            .any(|lock| file.path.ends_with(lock))
    {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (at, line) in (1..).zip(file.text.lines()) {
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(Finding::new(file, at, "space at the end of the line"));
        }
        if line.contains('\t') && !is_go(file) {
            findings.push(Finding::new(file, at, "tab"));
        }
        if let Some(word) = UNFINISHED.iter().find(|word| has_word(line, word)) {
            findings.push(Finding::new(file, at, format!("{word}: do it, or file an issue")));
        }
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        findings.push(Finding::new(
            file,
            file.text.lines().count(),
            "no newline at the end of the file",
        ));
    }
    findings
}

/// Go's own format has tabs.
fn is_go(file: &File) -> bool {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    name == "go.mod"
        || Path::new(name)
            .extension()
            .is_some_and(|extension| extension == "go")
}

fn has_word(line: &str, word: &str) -> bool {
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        !inside(before) && !inside(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        check(&File::new("a.md", text))
            .iter()
            .map(|finding| finding.line)
            .collect()
    }

    #[test]
    fn blanks() {
        assert!(lines("clean\n").is_empty());
        assert_eq!(lines("a \nb\tc\nd"), [1, 2, 3]);
    }

    #[test]
    fn tabs_are_for_go() {
        let file = |path: &str| File::new(path, "\ta\n");
        assert_eq!(check(&file("a.rs")).len(), 1);
        assert!(check(&file("tests/go.mod")).is_empty());
        assert!(check(&file("tests/a.go")).is_empty());
    }

    #[test]
    fn unfinished_work() {
        let word = UNFINISHED[0];
        assert_eq!(lines(&format!("// {word}: later\n")), [1]);
        assert!(lines(&format!("{word}S and mktemp /tmp/{0}{0}\n", UNFINISHED[2])).is_empty());
    }
}
