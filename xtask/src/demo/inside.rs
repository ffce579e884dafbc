//! Scene 6: the maps that the kernel programs use, as `bpftool` and as `weir services` see them.

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
        6,
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
        self.prompt("weir services          # on n1");
        self.print(&n1.weir(&["services"])?);
        Ok(())
    }

    /// What the kernel counted must be what the clients saw.
    fn compare_counts(&mut self) -> Result<()> {
        let mut same = true;
        let mut total = 0;
        for node in self.world.nodes.clone() {
            let chosen = chosen_by(&node)?;
            for pod in &self.world.backends {
                let kernel: u64 = pod
                    .addresses()
                    .iter()
                    .filter_map(|address| chosen.get(&address.to_string()))
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
        self.print(row.as_deref().unwrap_or("(the row of the Service is not there)"));
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
            self.screen.line(&format!("   {line}"));
        }
    }
}

/// Endpoint address → how often this node's kernel chose it, over all frontends of a Service.
fn chosen_by(node: &Node) -> Result<std::collections::BTreeMap<String, u64>> {
    let text = node.weir(&["services", "--output", "json"])?;
    let answer: Value = serde_json::from_str(&text).context("the JSON of `weir services` is broken")?;
    let endpoints = answer
        .get("items")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|frontend| frontend.get("endpoints")?.as_array())
        .flatten();
    Ok(endpoints
        .filter_map(|endpoint| {
            // A node port has the same endpoints, with the same counts, as the ClusterIP of its family.
            let address = endpoint.get("address")?.as_str()?.to_owned();
            Some((address, endpoint.get("chosen")?.as_u64()?))
        })
        .collect())
}

/// The element of the web Service's IPv4 address in bpftool's pretty output.
fn web_row(dump: &str) -> Option<String> {
    let bytes = dump_bytes();
    let row = dump
        .split("\n    },{")
        .find(|row| {
            let flat: String = row
                .chars()
                .filter(|character| !character.is_whitespace())
                .collect();
            flat.contains(&bytes) && flat.contains(&format!("\"port\":{PORT},"))
        })?
        .trim_start_matches(['[', '{'])
        .trim_end_matches(['\n', ']', '}', ' ']);
    let lines: Vec<_> = row.lines().filter(|line| !line.trim().is_empty()).collect();
    let indent = lines
        .iter()
        .map(|line| line.len() - line.trim_start().len())
        .min()
        .unwrap_or(0);
    Some(
        lines
            .iter()
            .map(|line| line.get(indent..).unwrap_or(line))
            .collect::<Vec<_>>()
            .join("\n"),
    )
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
