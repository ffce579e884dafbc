//! What became of the specs, beside what was expected of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::expected::Expected;
use super::focus::Focus;
use super::record::Record;
use super::report::{Outcome, Report, Spec};
use crate::cluster::Proxy;
use crate::count::Count;

/// As much of a message as a table has room for.
const ROOM: usize = 300;

/// What a run was asked, and what was known before.
pub(super) struct Question<'a> {
    pub(super) proxy: Proxy,
    pub(super) focus: &'a Focus,
    pub(super) expected: &'a Expected,
    /// The results that were kept; none for a proxy that is new.
    pub(super) kept: Option<&'a Record>,
}

/// A run, judged.
#[derive(Default)]
pub(super) struct Verdict {
    passed: u64,
    took: Duration,
    /// Why the run proves nothing.
    broken: Vec<String>,
    /// Spec, and what it says.
    failed: Vec<(String, String)>,
    /// Spec that should have passed or failed, and why it did neither.
    lost: Vec<(String, String)>,
    /// Spec, and why it was expected to fail.
    passed_unexpectedly: Vec<(String, String)>,
    /// Spec, and why it may fail.
    known: Vec<(String, String)>,
    /// Entries of expected.toml that are about nothing, as after a change of Kubernetes' version.
    strangers: Vec<String>,
    /// Reason, and how many specs it keeps from running.
    skipped: BTreeMap<String, u64>,
}

/// Judges a run.
pub(super) fn judge(report: &Report, question: &Question) -> Verdict {
    let mut verdict = Verdict {
        broken: report.broken.clone(),
        ..Verdict::default()
    };
    for spec in &report.specs {
        verdict.took += spec.took;
        verdict.add(spec, question);
    }
    if report.broken.is_empty() {
        verdict.miss(&report.specs, question);
    }
    verdict
}

impl Verdict {
    fn add(&mut self, spec: &Spec, question: &Question) {
        let fail = question.expected.fails(&spec.name, question.proxy);
        let known = fail.map(|fail| fail.reason.clone());
        let named = |text: String| (spec.name.clone(), text);
        match (&spec.outcome, known) {
            (Outcome::Passed, None) => self.passed += 1,
            (Outcome::Passed, Some(reason)) => self.passed_unexpectedly.push(named(reason)),
            (Outcome::Failed(_), Some(reason)) => self.known.push(named(reason)),
            (Outcome::Failed(says), None) => self.failed.push(named(says.clone())),
            (Outcome::Declined(says), known) => {
                let says = first_line(says);
                match question.ought_to_run(&spec.name, known.is_some()) {
                    Some(ought) => self.lost.push(named(format!("{ought}; now it declines: {says}"))),
                    None => *self.skipped.entry(says).or_default() += 1,
                }
            }
            // A run that was cut off leaves out what it did not come to.
            (Outcome::Pending | Outcome::LeftOut, _) if !self.broken.is_empty() => {}
            (Outcome::Pending | Outcome::LeftOut, known) => {
                if question.focus.has(&spec.name) {
                    self.add_left_out(spec, known.is_some(), question);
                }
            }
        }
    }

    /// A spec in focus that did not run.
    fn add_left_out(&mut self, spec: &Spec, is_known_to_fail: bool, question: &Question) {
        let reason = match spec.outcome {
            Outcome::Pending => Some("pending upstream"),
            _ => question.expected.skipped(&spec.name),
        };
        let ought = question.ought_to_run(&spec.name, is_known_to_fail);
        let lost = match (ought, reason) {
            (None, Some(reason)) => {
                *self.skipped.entry(reason.to_owned()).or_default() += 1;
                return;
            }
            (Some(ought), reason) => {
                format!(
                    "{ought}; now it is left out: {}",
                    reason.unwrap_or("nobody says why")
                )
            }
            (None, None) => "it is left out, and nobody says why".to_owned(),
        };
        self.lost.push((spec.name.clone(), lost));
    }

    /// Finds what was spoken of before, and of which the run says nothing at all.
    fn miss(&mut self, specs: &[Spec], question: &Question) {
        let names: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let kept = question.kept.into_iter().flat_map(Record::passed);
        for name in kept.filter(|name| question.focus.has(name) && !names.contains(name)) {
            let text = "the record says that it passes; now there is no spec of this name";
            self.lost.push((name.to_owned(), text.to_owned()));
        }
        if question.focus.is_whole() {
            let names: Vec<_> = names.into_iter().collect();
            self.strangers = question.expected.strangers(&names);
        }
    }

    /// A spec that fails as expected counts as skipped: it proves nothing.
    pub(super) fn count(&self) -> Count {
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let failed =
            self.failed.len() + self.lost.len() + self.passed_unexpectedly.len() + self.strangers.len();
        Count {
            passed: self.passed,
            failed: count(failed),
            skipped: count(self.known.len()) + self.skipped.values().sum::<u64>(),
        }
    }

    pub(super) fn is_as_expected(&self) -> bool {
        self.broken.is_empty() && self.count().failed == 0
    }
}

impl Question<'_> {
    /// Why a spec may not just stay away; `None` if it may.
    fn ought_to_run(&self, spec: &str, is_known_to_fail: bool) -> Option<&'static str> {
        if is_known_to_fail {
            return Some("expected.toml says that it fails");
        }
        let passed = self
            .kept
            .is_some_and(|kept| kept.passed().any(|name| name == spec));
        passed.then_some("the record says that it passes")
    }
}

/// Why no spec ran, if none did.
pub(super) fn nothing_ran(report: &Report, question: &Question) -> Option<String> {
    if !report.broken.is_empty() || report.specs.iter().any(|spec| spec.outcome.ran()) {
        return None;
    }
    let text = question.focus.text();
    let focused = report.specs.iter().filter(|spec| question.focus.has(&spec.name));
    let reasons: Vec<_> = focused
        .map(|spec| {
            question
                .expected
                .skipped(&spec.name)
                .unwrap_or("pending upstream")
        })
        .collect();
    if reasons.is_empty() {
        return Some(format!("no spec's name matches {text}"));
    }
    let different: BTreeSet<_> = reasons.iter().copied().collect();
    let different: Vec<_> = different.into_iter().collect();
    Some(format!(
        "none of the {} specs whose names match {text} can run here: {}",
        reasons.len(),
        different.join("; ")
    ))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, "failed", &self.failed)?;
        list(f, "did not run, and should have", &self.lost)?;
        list(
            f,
            "passed, though expected.toml says that it fails",
            &self.passed_unexpectedly,
        )?;
        list(f, "failed, as expected", &self.known)?;
        if !self.strangers.is_empty() {
            writeln!(f, "\nin expected.toml, about nothing:")?;
        }
        for entry in &self.strangers {
            writeln!(f, "  {entry}")?;
        }
        if !self.skipped.is_empty() {
            writeln!(f, "\nskipped:")?;
        }
        for (reason, specs) in &self.skipped {
            writeln!(f, "{specs:>5}  {reason}")?;
        }
        if !self.broken.is_empty() {
            writeln!(f, "\nthe run as a whole is a failure, whatever its specs say:")?;
        }
        for reason in &self.broken {
            writeln!(f, "  {}", short(reason))?;
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
    use crate::e2e::Scope;
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

    fn failed() -> Outcome {
        Outcome::Failed("because".to_owned())
    }

    fn declined() -> Outcome {
        Outcome::Declined("no cloud\nsome.go:1".to_owned())
    }

    /// The same as `verdict_of`, without a word on entries of the file that are about nothing.
    fn verdict(specs: Vec<Spec>, proxy: Proxy, focus: Option<&str>, passed: &[&str]) -> Verdict {
        Verdict {
            strangers: Vec::new(),
            ..verdict_of(specs, proxy, focus, passed)
        }
    }

    /// A run's verdict, with what was kept before, of all of the group or of what is in focus.
    fn verdict_of(specs: Vec<Spec>, proxy: Proxy, focus: Option<&str>, passed: &[&str]) -> Verdict {
        let kept = Record {
            specs: passed
                .iter()
                .map(|name| (format!("[sig-network] {name}"), Outcome::Passed))
                .collect(),
            ..Record::default()
        };
        let report = Report {
            specs,
            broken: Vec::new(),
        };
        let question = Question {
            proxy,
            focus: &Focus::new(focus, Scope::Everything).unwrap(),
            expected: &expected(),
            kept: Some(&kept),
        };
        judge(&report, &question)
    }

    #[test]
    fn a_surprise_is_a_failure_either_way() {
        let specs = || {
            vec![
                spec("a", Outcome::Passed),
                spec("known", failed()),
                spec("SCTP", Outcome::LeftOut),
                spec("gone", Outcome::Pending),
                spec("elsewhere", declined()),
            ]
        };
        let as_expected = verdict(specs(), Proxy::Weir, None, &["a"]);
        assert_eq!(as_expected.count().to_string(), "1 passed, 0 failed, 4 skipped");
        assert!(as_expected.is_as_expected());
        assert!(
            as_expected.to_string().contains("    1  no cloud\n"),
            "{as_expected}"
        );

        let surprise = verdict(specs(), Proxy::KubeProxyNftables, None, &[]);
        assert_eq!(surprise.count().to_string(), "1 passed, 1 failed, 3 skipped");
        assert!(!surprise.is_as_expected());
        assert!(
            surprise
                .to_string()
                .contains("[sig-network] known\n      because")
        );

        let surprise = verdict(vec![spec("known", Outcome::Passed)], Proxy::Weir, None, &[]);
        assert!(!surprise.is_as_expected());
    }

    #[test]
    fn a_spec_that_stops_running_is_a_failure() {
        for outcome in [declined(), Outcome::LeftOut, Outcome::Pending] {
            let one = || vec![spec("SCTP a", outcome.clone())];
            assert!(verdict(one(), Proxy::Weir, None, &[]).is_as_expected());
            let lost = verdict(one(), Proxy::Weir, None, &["SCTP a"]);
            assert_eq!(lost.count().to_string(), "0 passed, 1 failed, 0 skipped");
            assert!(
                lost.to_string()
                    .contains("the record says that it passes; now it"),
                "{lost}"
            );
        }
        let absent = verdict(vec![spec("a", Outcome::Passed)], Proxy::Weir, None, &["a", "b"]);
        assert_eq!(absent.count().failed, 1, "{absent}");
        assert!(absent.to_string().contains("no spec of this name"));
    }

    #[test]
    fn a_spec_that_should_fail_has_to_run() {
        for outcome in [declined(), Outcome::LeftOut] {
            let known = verdict(vec![spec("known", outcome)], Proxy::Weir, None, &[]);
            assert_eq!(known.count().failed, 1, "{known}");
        }
    }

    #[test]
    fn what_is_left_out_has_a_reason() {
        let specs = || vec![spec("a", Outcome::Passed), spec("other", Outcome::LeftOut)];
        assert_eq!(verdict(specs(), Proxy::Weir, None, &[]).count().failed, 1);
        assert_eq!(verdict(specs(), Proxy::Weir, Some("a$"), &[]).count().failed, 0);
    }

    #[test]
    fn specs_that_nobody_asked_for_do_not_count() {
        let specs = vec![
            spec("other", Outcome::LeftOut),
            spec("SCTP", Outcome::LeftOut),
            spec("known", Outcome::LeftOut),
        ];
        let none = verdict(specs, Proxy::Weir, Some("fourth"), &["other", "gone"]);
        assert_eq!(none.count().total(), 0, "{none}");
    }

    #[test]
    fn a_run_that_was_cut_off_is_a_failure_with_its_results() {
        let report = Report {
            specs: vec![spec("a", Outcome::Passed), spec("b", Outcome::LeftOut)],
            broken: vec!["Interrupted by Timeout".to_owned()],
        };
        let question = Question {
            proxy: Proxy::Weir,
            focus: &Focus::new(None, Scope::Everything).unwrap(),
            expected: &expected(),
            kept: None,
        };
        let verdict = judge(&report, &question);
        assert_eq!(verdict.count().to_string(), "1 passed, 0 failed, 0 skipped");
        assert!(!verdict.is_as_expected());
        assert!(verdict.to_string().contains("Interrupted by Timeout"));
        assert!(nothing_ran(&report, &question).is_none());
    }

    #[test]
    fn nothing_runs_for_a_reason() {
        let report = Report {
            specs: vec![spec("SCTP", Outcome::LeftOut), spec("a", Outcome::LeftOut)],
            broken: Vec::new(),
        };
        let why = |focus: &str| {
            let question = Question {
                proxy: Proxy::Weir,
                focus: &Focus::new(Some(focus), Scope::Everything).unwrap(),
                expected: &expected(),
                kept: None,
            };
            nothing_ran(&report, &question).unwrap()
        };
        assert_eq!(why("unknown"), "no spec's name matches unknown");
        assert_eq!(
            why("SC"),
            "none of the 1 specs whose names match SC can run here: no SCTP"
        );
    }

    #[test]
    fn an_entry_about_nothing_is_a_failure_of_a_whole_run() {
        let a = || vec![spec("a", Outcome::Passed)];
        let strange = verdict_of(a(), Proxy::Weir, None, &[]);
        assert_eq!(strange.count().failed, 2, "{strange}");
        assert!(strange.to_string().contains("[[skip]]: no spec of"), "{strange}");
        assert!(verdict_of(a(), Proxy::Weir, Some("a"), &[]).is_as_expected());
    }
}
