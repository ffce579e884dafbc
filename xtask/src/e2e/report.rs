//! What ginkgo reports of a run.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

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
    /// Nobody wanted it to run.
    LeftOut,
}

impl Outcome {
    /// Whether it was tried.
    pub(crate) fn ran(&self) -> bool {
        *self != Self::LeftOut
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    #[serde(default)]
    spec_reports: Option<Vec<Node>>,
    #[serde(default)]
    special_suite_failure_reasons: Option<Vec<String>>,
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

/// Reads `report.json`.
pub(super) fn read(path: &Path) -> Result<Vec<Spec>> {
    let file = File::open(path).with_context(|| format!("there is no report at {}", path.display()))?;
    let suites: Vec<Suite> = serde_json::from_reader(BufReader::new(file))
        .with_context(|| format!("{} is no report of ginkgo's", path.display()))?;
    specs(suites)
}

fn specs(suites: Vec<Suite>) -> Result<Vec<Spec>> {
    let mut specs = Vec::new();
    for suite in suites {
        for node in suite.spec_reports.into_iter().flatten() {
            if node.leaf_node_type == "It" {
                specs.push(node.into_spec());
            } else if node.failed() {
                bail!("{} failed: {}", node.leaf_node_type, node.message());
            }
        }
        let reasons = suite.special_suite_failure_reasons.unwrap_or_default();
        // What a failed spec is the reason for is told by that spec.
        if reasons
            .iter()
            .any(|reason| reason.contains("Timeout") || reason.contains("Interrupted"))
        {
            bail!("the run did not come to its end: {}", reasons.join(", "));
        }
    }
    Ok(specs)
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
            "skipped" | "pending" => Outcome::LeftOut,
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
    use super::*;

    fn read(nodes: &str) -> Result<Vec<Spec>> {
        specs(serde_json::from_str(&format!(
            r#"[{{"SpecReports": [{nodes}]}}]"#
        ))?)
    }

    fn node(kind: &str, state: &str, failure: &str) -> String {
        format!(
            r#"{{"ContainerHierarchyTexts": ["[sig-network] A"], "LeafNodeType": "{kind}", "LeafNodeText": "does",
                "State": "{state}", "RunTime": 2000000000 {failure}}}"#
        )
    }

    #[test]
    fn a_spec_that_declines_is_not_one_that_was_left_out() {
        let says = r#", "Failure": {"Message": "no cloud"}"#;
        let nodes = [
            node("It", "passed", ""),
            node("It", "skipped", says),
            node("It", "skipped", ""),
            node("It", "panicked", says),
        ];
        let specs = read(&nodes.join(",")).unwrap();
        let outcomes: Vec<_> = specs.iter().map(|spec| spec.outcome.clone()).collect();
        let expected = [
            Outcome::Passed,
            Outcome::Declined("no cloud".to_owned()),
            Outcome::LeftOut,
            Outcome::Failed("no cloud".to_owned()),
        ];
        assert_eq!(outcomes, expected);
        assert_eq!(specs[0].name, "[sig-network] A does");
        assert_eq!(specs[0].took, Duration::from_secs(2));
    }

    #[test]
    fn what_runs_before_all_specs_must_not_fail() {
        assert!(read(&node("SynchronizedBeforeSuite", "passed", "")).is_ok());
        assert!(read(&node("SynchronizedBeforeSuite", "failed", "")).is_err());
    }

    #[test]
    fn a_run_without_specs_has_none() {
        let suites = serde_json::from_str(r#"[{"SpecReports": null}]"#).unwrap();
        assert!(specs(suites).unwrap().is_empty());
    }
}
