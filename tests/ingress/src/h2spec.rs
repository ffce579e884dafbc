//! h2spec: asks a server for what RFC 7540 and RFC 7541 demand, and writes a report.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use roxmltree::{Document, Node};

use crate::Edge;

/// A case of the report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// Section, and what is asked: `http2/6.7: Sends a PING frame …`.
    pub name: String,
    /// What was wrong; nothing if it passed.
    pub failure: Option<String>,
    /// Not asked.
    pub skipped: bool,
}

/// Asks this server all that h2spec knows.
pub fn run(edge: &Edge, program: &Path, server: SocketAddr, path: &str, tls: bool) -> Result<Vec<Case>> {
    let report = edge.dir().join("h2spec.xml");
    let mut command = Command::new(program);
    command.args([
        "--host",
        &server.ip().to_string(),
        "--port",
        &server.port().to_string(),
    ]);
    command
        .args(["--path", path, "--strict", "--timeout", "2", "--junit-report"])
        .arg(&report);
    if tls {
        command.args(["--tls", "--insecure"]);
    }
    let mut process = edge.host().spawn(command)?;
    // It ends with an error if a case failed, which the report says better.
    process.wait(Duration::from_secs(120))?;
    let text = fs::read_to_string(&report).with_context(|| format!("no report:\n{}", process.log()))?;
    let cases = cases(&text)?;
    ensure!(!cases.is_empty(), "h2spec tried nothing:\n{}", process.log());
    Ok(cases)
}

fn cases(report: &str) -> Result<Vec<Case>> {
    let document = Document::parse(report).context("the report is no XML")?;
    let cases = document
        .descendants()
        .filter(|node| node.has_tag_name("testcase"));
    Ok(cases.map(|node| case(&node)).collect())
}

fn case(node: &Node) -> Case {
    let child = |name| node.children().find(|child| child.has_tag_name(name));
    let text = |node: Node| {
        node.descendants()
            .filter(Node::is_text)
            .filter_map(|text| text.text())
            .collect::<String>()
    };
    let attribute = |name| node.attribute(name).unwrap_or_default();
    Case {
        name: format!("{}: {}", attribute("package"), attribute("classname")),
        failure: child("failure").or_else(|| child("error")).map(text),
        skipped: child("skipped").is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_by_case() {
        let report = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites><testsuite name="6.7. PING" package="http2/6.7" tests="3">
  <testcase package="http2/6.7" classname="Sends a PING frame" time="0.1"></testcase>
  <testcase package="http2/6.7" classname="Sends a long one" time="0.1"><failure>-&gt; GOAWAY</failure></testcase>
  <testcase package="http2/6.7" classname="Sends none" time="0"><skipped></skipped></testcase>
</testsuite></testsuites>"#;
        let cases = cases(report).unwrap();
        assert_eq!(cases.len(), 3);
        assert_eq!(cases[0].name, "http2/6.7: Sends a PING frame");
        assert_eq!(cases[1].failure.as_deref(), Some("-> GOAWAY"));
        assert!(cases[2].skipped && cases[0].failure.is_none() && !cases[0].skipped);
    }
}
