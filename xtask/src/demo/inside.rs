//! Scene 5: the maps that the kernel programs use, as `bpftool` and as `weir services` see them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;
use weir_lab::Node;

use super::Stage;
use super::screen::Style;
use super::world::{PORT, WEB};

/// Where the maps are below a bpffs.
pub(super) const PINS: &str = "weir/v1";

pub(super) fn play(stage: &mut Stage) -> Result<()> {
    stage.screen.scene(
        5,
        "Looking inside",
        "The maps in the kernel are made to be read; weir's commands read the same ones, agent or no agent.",
    );
    stage.show_services()?;
    stage.compare_counts()?;
    stage.show_bpftool()
}

impl Stage {
    fn show_services(&mut self) -> Result<()> {
        let n1 = self.world.n1().clone();
        self.prompt("weir services web          # on n1");
        let told = n1.weir(&["services", "web"])?;
        self.print(&told);
        self.screen.blank();
        self.prompt("weir backends web          # on n1");
        let told = n1.weir(&["backends", "web"])?;
        self.print(&told);
        Ok(())
    }

    /// What the kernel counted must be what the clients saw.
    fn compare_counts(&mut self) -> Result<()> {
        let mut same = true;
        let mut total = 0;
        for node in self.world.nodes.clone() {
            let chosen = chosen_by(&node)?;
            for pod in &self.world.backends {
                let addresses = pod.addresses().map(|address| address.to_string());
                let kernel: u64 = chosen
                    .iter()
                    .filter(|((address, _), _)| addresses.contains(address))
                    .map(|(_, count)| count)
                    .sum();
                same &= kernel == self.world.remembered(node.name(), pod.name());
                total += kernel;
            }
        }
        let claim = "weir services counts the connections that the clients made";
        let mark = self.checks.note(same, claim).show(&self.screen);
        self.screen.line(&format!(
            "   {mark} on both nodes together {total} connections, as many for each backend as the clients counted"
        ));
        Ok(())
    }

    fn show_bpftool(&mut self) -> Result<()> {
        self.screen.blank();
        let Some(bpftool) = find("bpftool") else {
            let text = self.screen.paint(
                Style::Quiet,
                "bpftool is not installed here; it would show the same rows",
            );
            self.screen.line(&format!("   {text}"));
            return Ok(());
        };
        let services = self.world.n1().bpffs().join(PINS).join("SERVICES");
        let dump = |json: bool| {
            let mut command = Command::new(&bpftool);
            if json {
                command.arg("--json");
            }
            command.args(["map", "dump", "pinned"]).arg(&services);
            let output = command.output().context("cannot run bpftool")?;
            anyhow::ensure!(
                output.status.success(),
                "bpftool failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        self.prompt(&format!("bpftool map dump pinned {}", services.display()));
        let row = web_row(&dump(false)?);
        let width = self.screen.width().saturating_sub(6);
        for part in row.iter().flatten() {
            self.print(&wrap(part, width).join("\n"));
        }
        let rows: Value = serde_json::from_str(&dump(true)?).context("bpftool's JSON is broken")?;
        let good = row.is_some() && has_web(&rows);
        let claim = "bpftool shows the row of the Service web by field names, with three backends";
        let mark = self.checks.note(good, claim).show(&self.screen);
        self.screen.line(&format!(
            "   {mark} the frontend 10.96.0.10:80 and its slab of three backends, by field names"
        ));
        Ok(())
    }

    fn prompt(&mut self, line: &str) {
        let text = self.screen.paint(Style::Bold, &format!("# {line}"));
        self.screen.line(&format!("   {text}"));
    }

    fn print(&mut self, text: &str) {
        for line in text.lines() {
            let line = self.screen.fit(line, 3);
            self.screen.line(&format!("   {line}"));
        }
    }
}

/// Endpoint address and protocol → how often this node's kernel chose it.
fn chosen_by(node: &Node) -> Result<BTreeMap<(String, String), u64>> {
    let text = node.weir(&["services", "--output", "json"])?;
    let answer: Value = serde_json::from_str(&text).context("the JSON of `weir services` is broken")?;
    let frontends = answer.get("items").and_then(Value::as_array);
    let mut chosen = BTreeMap::new();
    for frontend in frontends.into_iter().flatten() {
        let protocol = text_of(frontend, "protocol");
        let endpoints = frontend.get("endpoints").and_then(Value::as_array);
        for endpoint in endpoints.into_iter().flatten() {
            let count = endpoint.get("chosen").and_then(Value::as_u64).unwrap_or(0);
            // A node port has the same endpoints, with the same counts, as the ClusterIP of its family.
            chosen.insert((text_of(endpoint, "address"), protocol.clone()), count);
        }
    }
    Ok(chosen)
}

fn text_of(value: &Value, field: &str) -> String {
    let text = value.get(field).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

/// The row of the web Service's IPv4 address in bpftool's output, with its line breaks taken out: key and value.
fn web_row(dump: &str) -> Option<[String; 2]> {
    let bytes = dump_bytes();
    let dump = dump.trim_end().trim_end_matches(']').trim_end();
    let row = dump
        .strip_suffix('}')?
        .split("\n    },{")
        .map(flat)
        .find(|row| row.contains(&bytes) && row.contains(&format!("\"port\": {PORT},")))?;
    let (key, value) = row.split_once("\"value\":")?;
    let key = key
        .trim_start_matches(['[', '{', ' '])
        .trim_end_matches([',', ' ']);
    Some([key.to_owned(), format!("\"value\":{value}").trim_end().to_owned()])
}

/// The text with every run of blanks as one, and none inside brackets.
fn flat(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").replace(" ]", "]")
}

/// Breaks a line after commas so that it fits; continued lines are indented.
fn wrap(line: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split_inclusive(", ") {
        let Some(last) = lines.last_mut() else { break };
        if !last.is_empty() && last.len() + word.trim_end().len() > width {
            lines.push(format!("    {word}"));
        } else {
            last.push_str(word);
        }
    }
    lines
}

/// The v4-mapped address as bpftool prints it, without blanks.
fn dump_bytes() -> String {
    let [web, _] = WEB;
    let octets = match web {
        std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(v6) => v6.octets(),
    };
    octets.map(|byte| byte.to_string()).join(",")
}

/// Whether a row has three backends for the Service's port, by field names.
fn has_web(rows: &Value) -> bool {
    rows.as_array().into_iter().flatten().any(|row| {
        let row = row.get("formatted").unwrap_or(row);
        row.pointer("/key/port").and_then(Value::as_u64) == Some(PORT.into())
            && row.pointer("/value/cluster/count").and_then(Value::as_u64) == Some(3)
    })
}

/// A program in the PATH, or where only root's PATH leads.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(|dir| Path::new(dir).to_owned()))
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_bpftool_becomes_two_lines() {
        let dump = r#"[{
        "key": {
            "address": {
                "bytes": [0,0,0,0,0,0,0,0,0,0,255,255,10,96,0,10
                ]
            },
            "port": 443
        },
        "value": {
            "id": 1
        }
    },{
        "key": {
            "address": {
                "bytes": [0,0,0,0,0,0,0,0,0,0,255,255,10,96,0,10
                ]
            },
            "port": 80,
            "scope": 0
        },
        "value": {
            "id": 2,
            "cluster": {
                "base": 6
            }
        }
    }
]"#;
        assert_eq!(
            web_row(dump),
            Some([
                r#""key": { "address": { "bytes": [0,0,0,0,0,0,0,0,0,0,255,255,10,96,0,10] }, "port": 80, "scope": 0 }"#
                    .to_owned(),
                r#""value": { "id": 2, "cluster": { "base": 6 } }"#.to_owned(),
            ])
        );
    }

    #[test]
    fn a_long_line_is_broken_after_commas() {
        assert_eq!(wrap("a: 1, b: 2, c: 3", 12), ["a: 1, b: 2, ", "    c: 3"]);
    }
}
