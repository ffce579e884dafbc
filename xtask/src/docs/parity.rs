//! `docs/parity.md`: Kubernetes' end-to-end tests with weir, beside kube-proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Result;

use crate::cluster::Proxy;
use crate::e2e::{CONFORMANCE, Expected, Outcome, Record};

/// The columns, and what they are called.
const COLUMNS: [(Proxy, &str); 3] = [
    (Proxy::Weir, "weir"),
    (Proxy::KubeProxyNftables, "nftables"),
    (Proxy::KubeProxyIptables, "iptables"),
];

const INTRODUCTION: &str = "# Beside kube-proxy

<!-- Written by `./x docs` from tests/cluster/results and tests/cluster/expected.toml. -->

What became of each spec of Kubernetes' network group (`[sig-network]`) in a cluster with both address families
(docs/cluster.md), with weir and with kube-proxy in both of its modes. Anyone can run the same:

```
./x test e2e                                # weir
./x test e2e --proxy kube-proxy-nftables    # the yardstick
```

`yes` passed, `NO` failed, `-` the spec itself found that it cannot run here. What ran is the work tree at a commit, with
the image whose archive has this SHA-256. A `*` stands beside what is not of that run, but of a later one of a few specs.
";

/// The page.
pub(super) fn page() -> Result<String> {
    let expected = Expected::read()?;
    let mut records = Vec::new();
    for (proxy, title) in COLUMNS {
        records.push((proxy, title, Record::read(proxy)?));
    }
    Ok(render(&records, &expected))
}

fn render(records: &[(Proxy, &str, Record)], expected: &Expected) -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str(&summary(records));
    let names: BTreeSet<&str> = records
        .iter()
        .flat_map(|(_, _, record)| record.specs.iter())
        .filter(|(_, outcome)| outcome.ran())
        .map(|(name, _)| name.as_str())
        .collect();
    let (conformance, others): (Vec<&str>, Vec<&str>) =
        names.iter().partition(|name| name.contains(CONFORMANCE));
    page.push_str("\n## Conformance\n\n");
    page.push_str(&table(&conformance, records, expected));
    page.push_str("\n## All others that ran\n\n");
    page.push_str(&table(&others, records, expected));
    page.push_str(&not_run(records, expected));
    page
}

fn summary(records: &[(Proxy, &str, Record)]) -> String {
    let mut text =
        "\n| | passed | failed | could not run | where | what |\n|---|---|---|---|---|---|\n".to_owned();
    for (_, title, record) in records {
        let count = |is: fn(&Outcome) -> bool| record.specs.values().filter(|outcome| is(outcome)).count();
        let _ = writeln!(
            text,
            "| {title} | {} | {} | {} | {} | {} |",
            count(|outcome| *outcome == Outcome::Passed),
            count(|outcome| matches!(outcome, Outcome::Failed(_))),
            count(|outcome| !matches!(outcome, Outcome::Passed | Outcome::Failed(_))),
            record.about,
            what(record),
        );
    }
    text
}

/// What ran.
fn what(record: &Record) -> String {
    let mut text = record.at.clone();
    if !record.later.is_empty() {
        let parts = record.parts.join("; ");
        let _ = write!(text, "; \\* {} of them later at {parts}", record.later.len());
    }
    text
}

fn table(names: &[&str], records: &[(Proxy, &str, Record)], expected: &Expected) -> String {
    let titles: Vec<_> = records.iter().map(|(_, title, _)| *title).collect();
    let mut text = format!("| {} | spec | |\n", titles.join(" | "));
    let _ = writeln!(text, "|{}", "---|".repeat(titles.len() + 2));
    for name in names {
        let cells: Vec<_> = records
            .iter()
            .map(|(_, _, record)| {
                let mark = if record.later.contains(*name) { " \\*" } else { "" };
                format!("{}{mark}", cell(record.specs.get(*name)))
            })
            .collect();
        let remark = remark(name, records, expected);
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            cells.join(" | "),
            escape(short(name)),
            escape(&remark)
        );
    }
    text
}

fn cell(outcome: Option<&Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Passed) => "yes",
        Some(Outcome::Failed(_)) => "**NO**",
        Some(Outcome::Declined(_)) => "-",
        Some(Outcome::LeftOut | Outcome::Pending) | None => "",
    }
}

/// Why it does not pass, said once if it is the same for all.
fn remark(name: &str, records: &[(Proxy, &str, Record)], expected: &Expected) -> String {
    let mut remarks: Vec<String> = Vec::new();
    for (proxy, title, record) in records {
        let remark = match record.specs.get(name) {
            Some(Outcome::Failed(_)) => expected
                .fails(name, *proxy)
                .map_or_else(|| format!("{title}: not looked into"), |fail| fail.reason.clone()),
            Some(Outcome::Declined(says)) => says.clone(),
            _ => continue,
        };
        if !remarks.contains(&remark) {
            remarks.push(remark);
        }
    }
    remarks.join("; ")
}

fn not_run(records: &[(Proxy, &str, Record)], expected: &Expected) -> String {
    let mut reasons: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let specs = records.iter().flat_map(|(_, _, record)| record.specs.iter());
    for (name, outcome) in specs.filter(|(_, outcome)| !outcome.ran()) {
        let reason = match outcome {
            Outcome::Pending => "it is pending upstream",
            _ => expected
                .skipped(name)
                .unwrap_or("of a reason that nobody wrote down"),
        };
        reasons.entry(reason).or_default().insert(name);
    }
    let mut text = "\n## Not run\n".to_owned();
    for (reason, names) in reasons {
        let _ = writeln!(text, "\nBecause {reason}:\n");
        for name in names {
            let _ = writeln!(text, "* {}", escape(short(name)));
        }
    }
    text
}

/// The group is the page's.
fn short(name: &str) -> &str {
    name.strip_prefix("[sig-network] ").unwrap_or(name)
}

/// So that Markdown reads nothing into it.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if "|<>*_[]".contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::Fail;

    fn record(outcomes: &[(&str, Outcome)]) -> Record {
        let named = |(name, outcome): &(&str, Outcome)| (format!("[sig-network] {name}"), outcome.clone());
        Record {
            about: "here".to_owned(),
            at: "abc".to_owned(),
            specs: outcomes.iter().map(named).collect(),
            ..Record::default()
        }
    }

    #[test]
    fn a_failure_has_its_reason_beside_it() {
        let weir = record(&[
            ("a [Conformance]", Outcome::Passed),
            ("b", Outcome::Failed(String::new())),
        ]);
        let peer = record(&[
            ("a [Conformance]", Outcome::Passed),
            ("b", Outcome::Declined("no".to_owned())),
        ]);
        let expected = Expected {
            fail: vec![Fail {
                spec: "[sig-network] b".to_owned(),
                proxies: vec![Proxy::Weir],
                reason: "later".to_owned(),
            }],
            ..Expected::default()
        };
        let records = [
            (Proxy::Weir, "weir", weir),
            (Proxy::KubeProxyNftables, "nftables", peer),
        ];
        let page = render(&records, &expected);
        assert!(page.contains("| yes | yes | a \\[Conformance\\] |  |"), "{page}");
        assert!(page.contains("| **NO** | - | b | later; no |"), "{page}");
        assert!(page.contains("| weir | 1 | 1 | 0 | here | abc |"), "{page}");
    }

    #[test]
    fn the_page_says_what_is_of_another_run() {
        let mut weir = record(&[("a", Outcome::Passed), ("b", Outcome::Passed)]);
        weir.parts = vec!["def".to_owned()];
        weir.later.insert("[sig-network] b".to_owned());
        let page = render(&[(Proxy::Weir, "weir", weir)], &Expected::default());
        assert!(page.contains("| yes | a |  |"), "{page}");
        assert!(page.contains("| yes \\* | b |  |"), "{page}");
        assert!(
            page.contains("| here | abc; \\* 1 of them later at def |"),
            "{page}"
        );
    }

    #[test]
    fn what_did_not_run_has_the_reason_that_is_known() {
        let weir = record(&[("a", Outcome::Pending), ("b", Outcome::LeftOut)]);
        let page = render(&[(Proxy::Weir, "weir", weir)], &Expected::default());
        assert!(
            page.contains("Because it is pending upstream:\n\n* a\n"),
            "{page}"
        );
        assert!(page.contains("nobody wrote down:\n\n* b\n"), "{page}");
    }
}
