//! `tests/cluster/results/PROXY.txt`: what became of every spec of the group in the last run that was kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};

use super::expected::Expected;
use super::report::{Outcome, Spec};
use crate::cluster::{Proxy, kubernetes_version};
use crate::workspace;

/// The results of one proxy.
#[derive(Default)]
pub(crate) struct Record {
    /// What ran, in words.
    pub(crate) about: String,
    pub(crate) specs: BTreeMap<String, Outcome>,
}

/// Its file, in the tree.
fn path(proxy: Proxy) -> String {
    format!("tests/cluster/results/{}.txt", proxy.name())
}

/// Writes what became of the group's specs; of a part of them, those that ran take the place of what was kept before.
pub(super) fn write(proxy: Proxy, specs: &[Spec], expected: &Expected, is_part: bool) -> Result<()> {
    let mut record = if is_part {
        Record::read(proxy)
            .context("there is nothing yet that a part could be added to: leave out --focus")?
    } else {
        Record::default()
    };
    record.about = format!("Kubernetes {}, Linux {}", kubernetes_version()?, kernel());
    record.take(specs, |spec| {
        !is_part || spec.outcome.ran() || expected.skipped(&spec.name).is_some()
    });
    let path = path(proxy);
    let whole = workspace::root().join(&path);
    if let Some(folder) = whole.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&whole, record.render()).with_context(|| format!("cannot write {path}"))?;
    eprintln!("x: wrote {path}: `./x docs` brings it to docs/parity.md");
    Ok(())
}

/// `6.18`, of `6.18.2-something`.
fn kernel() -> String {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy().into_owned();
    let mut parts = release.split(['.', '-']);
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{major}.{minor}")
}

impl Record {
    /// What the tree has of this proxy.
    pub(crate) fn read(proxy: Proxy) -> Result<Self> {
        let path = path(proxy);
        Self::parse(&workspace::read(&path)?).with_context(|| format!("reading {path}"))
    }

    /// Those of the group's specs that are `wanted` take the place of what was kept before.
    fn take(&mut self, specs: &[Spec], wanted: impl Fn(&Spec) -> bool) {
        let group = specs.iter().filter(|spec| spec.name.contains(super::GROUP));
        for spec in group.filter(|spec| wanted(spec)) {
            self.specs.insert(spec.name.clone(), spec.outcome.clone());
        }
    }

    fn render(&self) -> String {
        let mut text = format!("# {}\n", self.about);
        for (spec, outcome) in &self.specs {
            let (word, says) = match outcome {
                Outcome::Passed => ("passed", ""),
                // Why is told by expected.toml: what it says has times and addresses in it.
                Outcome::Failed(_) => ("failed", ""),
                Outcome::Declined(says) => ("declined", says.lines().next().unwrap_or_default()),
                Outcome::LeftOut => ("left out", ""),
            };
            let line = if says.is_empty() {
                format!("{word} | {spec}")
            } else {
                format!("{word} | {spec} | {says}")
            };
            // A `String` takes everything.
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }

    fn parse(text: &str) -> Result<Self> {
        let (first, rest) = text.split_once('\n').context("the file is empty")?;
        let about = first
            .strip_prefix("# ")
            .context("it does not begin with a line `# ...`")?;
        let row = |line: &str| -> Option<(String, Outcome)> {
            let mut fields = line.split(" | ");
            let (word, spec) = (fields.next()?, fields.next()?);
            let says = fields.next().unwrap_or_default().to_owned();
            let outcome = match word {
                "passed" => Outcome::Passed,
                "failed" => Outcome::Failed(says),
                "declined" => Outcome::Declined(says),
                "left out" => Outcome::LeftOut,
                _ => return None,
            };
            Some((spec.to_owned(), outcome))
        };
        let specs = rest
            .lines()
            .map(|line| row(line).with_context(|| format!("not a result: {line}")));
        Ok(Self {
            about: about.to_owned(),
            specs: specs.collect::<Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let outcomes = [
            ("a", Outcome::Passed),
            ("b", Outcome::Declined("no cloud".to_owned())),
            ("c", Outcome::LeftOut),
            ("d", Outcome::Failed(String::new())),
        ];
        let record = Record {
            about: "Kubernetes v1".to_owned(),
            specs: outcomes.map(|(name, outcome)| (name.to_owned(), outcome)).into(),
        };
        let read = Record::parse(&record.render()).unwrap();
        assert_eq!(read.about, record.about);
        assert_eq!(read.specs, record.specs);
    }

    #[test]
    fn a_part_leaves_the_rest_as_it_was() {
        let spec = |name: &str, outcome| Spec {
            name: format!("[sig-network] {name}"),
            outcome,
            took: Duration::ZERO,
        };
        let mut record = Record::default();
        let all = [
            spec("a", Outcome::Passed),
            spec("b", Outcome::Failed(String::new())),
        ];
        record.take(&all, |_| true);
        let part = [spec("a", Outcome::LeftOut), spec("b", Outcome::Passed)];
        record.take(&part, |spec| spec.outcome.ran());
        assert!(record.specs.values().all(|outcome| *outcome == Outcome::Passed));
    }

    #[test]
    fn an_unknown_word_is_an_error() {
        assert!(Record::parse("# a\nmaybe | b\n").is_err());
        assert!(Record::parse("").is_err());
    }
}
