//! What became of the specs, beside what was expected of them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};

use super::expected::Expected;
use super::report::{Outcome, Spec};
use crate::cluster::Proxy;
use crate::count::Count;

/// As much of a message as a table has room for.
const ROOM: usize = 300;

/// A run, judged.
#[derive(Default)]
pub(super) struct Verdict {
    passed: u64,
    took: Duration,
    /// Spec, and what it says.
    failed: Vec<(String, String)>,
    /// Spec, and why it was expected to fail.
    passed_unexpectedly: Vec<(String, String)>,
    /// Spec, and why it may fail.
    known: Vec<(String, String)>,
    /// Reason, and how many specs it keeps from running.
    skipped: BTreeMap<String, u64>,
}

/// Judges a run with this proxy.
pub(super) fn judge(specs: &[Spec], proxy: Proxy, expected: &Expected) -> Verdict {
    let mut verdict = Verdict::default();
    for spec in specs {
        let known = expected.fails(&spec.name, proxy).map(|fail| fail.reason.clone());
        let named = |text: String| (spec.name.clone(), text);
        verdict.took += spec.took;
        match (&spec.outcome, known) {
            (Outcome::Passed, None) => verdict.passed += 1,
            (Outcome::Passed, Some(reason)) => verdict.passed_unexpectedly.push(named(reason)),
            (Outcome::Failed(_), Some(reason)) => verdict.known.push(named(reason)),
            (Outcome::Failed(says), None) => verdict.failed.push(named(says.clone())),
            (Outcome::Declined(says), _) => *verdict.skipped.entry(first_line(says)).or_default() += 1,
            (Outcome::LeftOut, _) => {
                let reason = expected.skipped(&spec.name);
                if let Some(reason) = reason.filter(|_| spec.name.contains(super::GROUP)) {
                    *verdict.skipped.entry(reason.to_owned()).or_default() += 1;
                }
            }
        }
    }
    verdict
}

impl Verdict {
    /// A spec that fails as expected counts as skipped: it proves nothing.
    pub(super) fn count(&self) -> Count {
        let length = |list: &[_]| u64::try_from(list.len()).unwrap_or(u64::MAX);
        Count {
            passed: self.passed,
            failed: length(&self.failed) + length(&self.passed_unexpectedly),
            skipped: length(&self.known) + self.skipped.values().sum::<u64>(),
        }
    }

    pub(super) fn is_as_expected(&self) -> bool {
        self.failed.is_empty() && self.passed_unexpectedly.is_empty()
    }
}

/// An error if the file speaks of specs that do not exist, as after a change of Kubernetes' version.
pub(super) fn complain_of_strangers(specs: &[Spec], expected: &Expected) -> Result<()> {
    let texts = expected.skip.iter().map(|skip| &skip.text);
    let unused = texts.filter(|text| !specs.iter().any(|spec| spec.name.contains(*text)));
    let names = expected.fail.iter().map(|fail| &fail.spec);
    let gone = names.filter(|name| !specs.iter().any(|spec| spec.name == **name));
    let strangers: Vec<_> = unused.chain(gone).map(String::as_str).collect();
    if !strangers.is_empty() {
        bail!(
            "tests/cluster/expected.toml: no spec has this name: {}",
            strangers.join("; ")
        );
    }
    Ok(())
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, "failed", &self.failed)?;
        list(
            f,
            "passed, though expected.toml says that it fails",
            &self.passed_unexpectedly,
        )?;
        list(f, "failed, as expected", &self.known)?;
        if !self.skipped.is_empty() {
            writeln!(f, "\nskipped:")?;
        }
        for (reason, specs) in &self.skipped {
            writeln!(f, "{specs:>5}  {reason}")?;
        }
        let sum = self.took.as_secs();
        write!(f, "\nspecs: {} (their times add up to {sum} s)", self.count())
    }
}

fn list(f: &mut fmt::Formatter<'_>, title: &str, specs: &[(String, String)]) -> fmt::Result {
    if !specs.is_empty() {
        writeln!(f, "\n{title}:")?;
    }
    for (name, text) in specs {
        writeln!(f, "  {name}\n      {}", short(text))?;
    }
    Ok(())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// One line that fits.
fn short(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").chars().take(ROOM).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::expected::{Fail, Skip};

    fn spec(name: &str, outcome: Outcome) -> Spec {
        Spec {
            name: format!("[sig-network] {name}"),
            outcome,
            took: Duration::from_secs(1),
        }
    }

    fn expected() -> Expected {
        Expected {
            skip: vec![Skip {
                text: "SCTP".to_owned(),
                reason: "no SCTP".to_owned(),
            }],
            fail: vec![Fail {
                spec: "[sig-network] known".to_owned(),
                proxies: vec![Proxy::Weir],
                reason: "later".to_owned(),
            }],
        }
    }

    #[test]
    fn a_surprise_is_a_failure_either_way() {
        let failed = || Outcome::Failed("because".to_owned());
        let specs = [
            spec("a", Outcome::Passed),
            spec("known", failed()),
            spec("SCTP", Outcome::LeftOut),
        ];
        let verdict = judge(&specs, Proxy::Weir, &expected());
        assert_eq!(verdict.count().to_string(), "1 passed, 0 failed, 2 skipped");
        assert!(verdict.is_as_expected());

        let verdict = judge(&specs, Proxy::KubeProxyNftables, &expected());
        assert_eq!(verdict.count().to_string(), "1 passed, 1 failed, 1 skipped");
        assert!(!verdict.is_as_expected());
        assert!(verdict.to_string().contains("[sig-network] known\n      because"));

        let verdict = judge(&[spec("known", Outcome::Passed)], Proxy::Weir, &expected());
        assert!(!verdict.is_as_expected());
    }

    #[test]
    fn specs_that_nobody_asked_for_do_not_count() {
        let verdict = judge(&[spec("other", Outcome::LeftOut)], Proxy::Weir, &expected());
        assert_eq!(verdict.count().total(), 0);
    }

    #[test]
    fn a_name_that_no_spec_has_is_found() {
        let known = spec("known", Outcome::LeftOut);
        let sctp = spec("SCTP", Outcome::LeftOut);
        assert!(complain_of_strangers(&[known, sctp], &expected()).is_ok());
        assert!(complain_of_strangers(&[spec("known", Outcome::Passed)], &expected()).is_err());
    }
}
