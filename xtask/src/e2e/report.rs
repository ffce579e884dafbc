//! What ginkgo reports of a run.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

/// A run.
#[derive(Default)]
pub(super) struct Report {
    pub(super) specs: Vec<Spec>,
    /// Why it proves nothing, whatever its specs say: it was cut off, or did not do what it had set out to do.
    pub(super) broken: Vec<String>,
}

/// A spec, and what became of it.
pub(super) struct Spec {
    pub(super) name: String,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
}

/// What became of a spec.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Passed,
    /// With what it says.
    Failed(String),
    /// It found that it cannot run here, and says why.
    Declined(String),
    /// Kubernetes itself has taken it out.
    Pending,
    /// Nobody wanted it to run.
    LeftOut,
}

impl Outcome {
    /// Whether it was tried.
    pub(crate) fn ran(&self) -> bool {
        !matches!(self, Self::LeftOut | Self::Pending)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    #[serde(rename = "SuiteSucceeded")]
    succeeded: bool,
    pre_run_stats: PreRunStats,
    #[serde(default)]
    spec_reports: Option<Vec<Node>>,
    #[serde(default)]
    special_suite_failure_reasons: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PreRunStats {
    specs_that_will_run: usize,
}

/// A spec, or something that runs before or after all of them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    #[serde(default)]
    leaf_node_text: String,
    state: String,
    /// Nanoseconds.
    #[serde(default)]
    run_time: u64,
    #[serde(default)]
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
}

/// Reads `report.json`, which a ginkgo left that ended like this.
pub(super) fn read(path: &Path, ended: ExitStatus) -> Result<Report> {
    let file = File::open(path)
        .with_context(|| format!("ginkgo ended ({ended}) without a report at {}", path.display()))?;
    let suites: Vec<Suite> = serde_json::from_reader(BufReader::new(file))
        .with_context(|| format!("{} is no report of ginkgo's", path.display()))?;
    Ok(report(suites, ended))
}

fn report(suites: Vec<Suite>, ended: ExitStatus) -> Report {
    let mut report = Report::default();
    let mut planned = 0;
    let mut succeeded = true;
    for suite in suites {
        for node in suite.spec_reports.into_iter().flatten() {
            if node.leaf_node_type == "It" {
                report.specs.push(node.into_spec());
            } else if node.failed() {
                report
                    .broken
                    .push(format!("{} failed: {}", node.leaf_node_type, node.message()));
            }
        }
        planned += suite.pre_run_stats.specs_that_will_run;
        succeeded &= suite.succeeded;
        // All of them are about the run: a spec that failed tells of itself.
        report
            .broken
            .extend(suite.special_suite_failure_reasons.into_iter().flatten());
    }
    let ran = report.specs.iter().filter(|spec| spec.outcome.ran()).count();
    if ran != planned {
        report
            .broken
            .push(format!("{ran} specs ran, of {planned} that were to"));
    }
    let failed = |spec: &Spec| matches!(spec.outcome, Outcome::Failed(_));
    if !(succeeded && ended.success()) && report.broken.is_empty() && !report.specs.iter().any(failed) {
        report.broken.push(format!(
            "no spec failed, and yet ginkgo says that the suite did ({ended})"
        ));
    }
    // Each of the parallel processes says the same.
    report.broken.dedup();
    report
}

impl Node {
    fn failed(&self) -> bool {
        !matches!(self.state.as_str(), "passed" | "skipped" | "pending")
    }

    fn message(&self) -> String {
        let message = self.failure.as_ref().map(|failure| failure.message.trim());
        message.unwrap_or_default().to_owned()
    }

    fn into_spec(self) -> Spec {
        let message = self.message();
        let outcome = match self.state.as_str() {
            "passed" => Outcome::Passed,
            "skipped" if !message.is_empty() => Outcome::Declined(message),
            "skipped" => Outcome::LeftOut,
            "pending" => Outcome::Pending,
            _ => Outcome::Failed(message),
        };
        let texts = self.container_hierarchy_texts.unwrap_or_default().into_iter();
        let name: Vec<_> = texts.chain([self.leaf_node_text]).collect();
        Spec {
            name: name.join(" "),
            outcome,
            took: Duration::from_nanos(self.run_time),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn suites(succeeded: bool, planned: usize, nodes: &[String], reasons: &str) -> Vec<Suite> {
        let nodes = nodes.join(",");
        let text = format!(
            r#"[{{"SuiteSucceeded": {succeeded}, "PreRunStats": {{"TotalSpecs": 9, "SpecsThatWillRun": {planned}}},
                "SpecialSuiteFailureReasons": [{reasons}], "SpecReports": [{nodes}]}}]"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn well() -> ExitStatus {
        ExitStatus::from_raw(0)
    }

    fn with_failures() -> ExitStatus {
        ExitStatus::from_raw(1 << 8)
    }

    fn node(kind: &str, state: &str, failure: &str) -> String {
        format!(
            r#"{{"ContainerHierarchyTexts": ["[sig-network] A"], "LeafNodeType": "{kind}", "LeafNodeText": "does",
                "State": "{state}", "RunTime": 2000000000 {failure}}}"#
        )
    }

    const SAYS: &str = r#", "Failure": {"Message": "no cloud"}"#;

    #[test]
    fn a_spec_that_declines_is_not_one_that_was_left_out() {
        let nodes = [
            node("It", "passed", ""),
            node("It", "skipped", SAYS),
            node("It", "skipped", ""),
            node("It", "pending", ""),
            node("It", "panicked", SAYS),
        ];
        let report = report(suites(false, 3, &nodes, ""), with_failures());
        let outcomes: Vec<_> = report.specs.iter().map(|spec| spec.outcome.clone()).collect();
        let expected = [
            Outcome::Passed,
            Outcome::Declined("no cloud".to_owned()),
            Outcome::LeftOut,
            Outcome::Pending,
            Outcome::Failed("no cloud".to_owned()),
        ];
        assert_eq!(outcomes, expected);
        assert!(report.broken.is_empty(), "{:?}", report.broken);
        assert_eq!(report.specs[0].name, "[sig-network] A does");
        assert_eq!(report.specs[0].took, Duration::from_secs(2));
    }

    #[test]
    fn what_runs_before_all_specs_must_not_fail() {
        let of = |state| {
            report(
                suites(true, 0, &[node("SynchronizedBeforeSuite", state, "")], ""),
                well(),
            )
        };
        assert!(of("passed").broken.is_empty());
        assert_eq!(of("failed").broken, ["SynchronizedBeforeSuite failed: "]);
    }

    #[test]
    fn a_run_that_did_less_than_it_planned_is_broken_and_keeps_what_it_has() {
        let passed = [node("It", "passed", "")];
        let report = report(suites(true, 4, &passed, ""), well());
        assert_eq!(report.broken, ["1 specs ran, of 4 that were to"]);
        assert_eq!(report.specs.len(), 1);
    }

    #[test]
    fn ginkgos_own_verdict_counts() {
        let passed = [node("It", "passed", "")];
        let broken = |succeeded, nodes: &[String], reasons, ended| {
            report(suites(succeeded, 1, nodes, reasons), ended).broken
        };
        assert!(broken(true, &passed, "", well()).is_empty());
        assert_eq!(broken(false, &passed, "", with_failures()).len(), 1);
        assert_eq!(broken(true, &passed, "", with_failures()).len(), 1);
        // A spec that failed is reason enough.
        let failed = [node("It", "failed", SAYS)];
        assert!(broken(false, &failed, "", with_failures()).is_empty());
        let left = r#""Failed to iterate over specs", "Failed to iterate over specs""#;
        assert_eq!(
            broken(false, &failed, left, with_failures()),
            ["Failed to iterate over specs"]
        );
    }

    #[test]
    fn a_run_without_specs_has_none() {
        let text =
            r#"[{"SuiteSucceeded": true, "PreRunStats": {"SpecsThatWillRun": 0}, "SpecReports": null}]"#;
        assert!(
            report(serde_json::from_str(text).unwrap(), well())
                .specs
                .is_empty()
        );
    }

    #[test]
    fn a_report_without_a_verdict_is_none() {
        assert!(serde_json::from_str::<Vec<Suite>>(r#"[{"SpecReports": null}]"#).is_err());
    }
}
