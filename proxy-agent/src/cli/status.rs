//! `weir status`: does weir run here, and how full is it?

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::Result;
use proxy_common::maps::{BACKEND_STATE, SERVICES};
use proxy_daemon::table::Table;
use proxy_model::source_ports::PortRange;
use rustix::net::netdevice::index_to_name;
use rustix::net::{AddressFamily, SocketType, socket};
use serde::Serialize;

use super::{print, print_json};
use crate::config::{self, Output, OutputFlags};
use crate::kernel::{self, Maps, Pins};
use crate::problems;
use proxy_source::Sentences;

/// What there is to know.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    version: String,
    abi: u32,
    bpffs: String,
    /// Who holds the lock on the pins; none if no agent runs.
    agent: Option<String>,
    /// What is wrong, each in a sentence; none if no agent answers in this network namespace.
    problems: Option<Sentences>,
    /// Whether sockets are served when they connect; else only packets are.
    socket_hooks: bool,
    /// Source ports of translated connections; none before the first agent has started.
    source_ports: Option<String>,
    programs: Vec<Place>,
    maps: Vec<Fill>,
    counters: BTreeMap<&'static str, u64>,
}

/// Where programs are attached by links that outlive the agent.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    place: String,
    hooks: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Fill {
    name: &'static str,
    used: usize,
    capacity: usize,
    /// Fills up in good times too.
    cache: bool,
}

/// Answers.
pub fn run(flags: &OutputFlags) -> Result<()> {
    let pins = flags.bpffs.pins();
    let status = status(&pins, &Maps::open(&pins)?)?;
    match flags.output {
        Output::Json => print_json(&status),
        output => print(&text(&status, output == Output::Wide, !flags.no_headers)?),
    }
}

fn status(pins: &Pins, maps: &Maps) -> Result<Status> {
    let links = fs::read_dir(pins.links()).into_iter().flatten().flatten();
    let links = links.map(|entry| entry.file_name().to_string_lossy().into_owned());
    // A link that is just being made.
    let links = links.filter(|name| !name.ends_with("-new"));
    let links: Vec<String> = links.collect();
    Ok(Status {
        version: config::VERSION.clone(),
        abi: maps.meta()?.abi,
        bpffs: pins.root().display().to_string(),
        agent: kernel::running_agent(pins),
        problems: problems::ask(pins),
        socket_hooks: links.iter().any(|name| name.starts_with("cgroup-")),
        source_ports: PortRange::of_config(&maps.config()?).map(|range| range.to_string()),
        programs: places(links.into_iter(), interface_name(maps)),
        maps: maps
            .fill()?
            .into_iter()
            .map(|fill| Fill {
                name: fill.map,
                used: fill.used,
                capacity: fill.capacity,
                cache: fill.is_cache(),
            })
            .collect(),
        counters: maps
            .counters()?
            .into_iter()
            .map(|(reason, count)| (reason.name(), count))
            .collect(),
    })
}

/// Pins of links are called `cgroup-<hook>` and `tcx-<interface index>-<side>`.
fn places(links: impl Iterator<Item = String>, name: impl Fn(u32) -> Option<String>) -> Vec<Place> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for link in links {
        let (place, hook) = match link.split_once('-') {
            Some(("cgroup", hook)) => ("sockets of the cgroup".to_owned(), hook.to_owned()),
            Some((_, rest)) => match rest.split_once('-') {
                Some((index, side)) => {
                    let known = index.parse().ok().and_then(&name);
                    let shown = known.unwrap_or_else(|| format!("number {index}"));
                    (format!("interface {shown}"), side.to_owned())
                }
                None => (link, String::new()),
            },
            None => (link, String::new()),
        };
        places.entry(place).or_default().push(hook);
    }
    places
        .into_iter()
        .map(|(place, mut hooks)| {
            hooks.sort();
            Place { place, hooks }
        })
        .collect()
}

/// The name, if `weir status` runs in the network namespace of the node: elsewhere the same index is another interface.
fn interface_name(maps: &Maps) -> impl Fn(u32) -> Option<String> {
    let here = maps.are_of_this_namespace();
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None);
    move |index| index_to_name(socket.as_ref().ok().filter(|_| here)?, index).ok()
}

fn text(status: &Status, all: bool, headers: bool) -> Result<String> {
    let mut text = head(status)?;
    let mut places = Table::new(["ATTACHED TO", "HOOKS"]);
    for place in &status.programs {
        places.push([place.place.clone(), place.hooks.join(",")]);
    }
    let mut maps = Table::new(["MAP", "USED", "OF", "FULL"]);
    for fill in &status.maps {
        if all || fill.used > 0 || [SERVICES, BACKEND_STATE].contains(&fill.name) {
            maps.push([
                fill.name.to_owned(),
                fill.used.to_string(),
                fill.capacity.to_string(),
                fullness(fill),
            ]);
        }
    }
    // Not all are packets: the socket hooks count sockets.
    let mut counters = Table::new(["REASON", "COUNT"]);
    for (reason, count) in &status.counters {
        if all || *count > 0 {
            counters.push([(*reason).to_owned(), count.to_string()]);
        }
    }
    for table in [places, maps, counters] {
        let rendered = table.render(headers);
        if !rendered.is_empty() {
            write!(text, "\n{rendered}")?;
        }
    }
    write!(text, "{}", wrong(status, headers))?;
    Ok(text)
}

fn head(status: &Status) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "weir {}", status.version)?;
    writeln!(text, "Maps:   {} (ABI {})", status.bpffs, status.abi)?;
    match &status.agent {
        Some(holder) => writeln!(text, "Agent:  running ({holder})")?,
        None => writeln!(
            text,
            "Agent:  not running; the programs go on serving what they were told last"
        )?,
    }
    if !status.socket_hooks {
        writeln!(
            text,
            "Socket hooks: off, because the agent found no cgroup v2 hierarchy; \
             pods are served packet by packet, the node's own processes are not"
        )?;
    }
    if let Some(range) = &status.source_ports {
        writeln!(text, "SNAT:   source ports {range}")?;
    }
    Ok(text)
}

/// What the log has as warnings that still hold.
fn wrong(status: &Status, headers: bool) -> String {
    let title = if headers { "\nPROBLEMS\n" } else { "\n" };
    match &status.problems {
        None if status.agent.is_some() => {
            format!("{title}ask in the network namespace of the agent, or look at its log\n")
        }
        Some(sentences) if !sentences.is_empty() => sentences
            .iter()
            .fold(title.to_owned(), |text, sentence| text + sentence + "\n"),
        _ => String::new(),
    }
}

/// How full a map is, if that means anything.
fn fullness(fill: &Fill) -> String {
    if fill.cache {
        return "cache".to_owned();
    }
    let percent = (fill.used * 100).checked_div(fill.capacity).unwrap_or(0);
    format!("{percent}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let fill = |name, used, cache| Fill {
            name,
            used,
            capacity: 100,
            cache,
        };
        Status {
            version: "1".to_owned(),
            abi: 1,
            bpffs: "/b".to_owned(),
            agent: None,
            problems: None,
            socket_hooks: true,
            source_ports: None,
            programs: Vec::new(),
            maps: vec![fill("FLOWS", 99, false), fill("SOCKETS", 99, true)],
            counters: BTreeMap::from([("SocketTranslated", 5)]),
        }
    }

    #[test]
    fn a_cache_is_not_called_full() {
        let text = text(&status(), false, true).unwrap();
        for line in [
            "FLOWS     99     100   99%\n",
            "SOCKETS   99     100   cache\n",
            "REASON             COUNT\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        let fill = |map| kernel::Fill {
            map,
            used: 1,
            capacity: 1,
        };
        let caches = ["FLOWS", "FRAGMENTS", "SERVICES", "SOCKETS"].map(|map| fill(map).is_cache());
        assert_eq!(caches, [false, true, false, true]);
    }

    #[test]
    fn names_of_columns_can_be_left_out() {
        let text = text(&status(), false, false).unwrap();
        assert!(!text.contains("REASON") && !text.contains("MAP "), "{text}");
        assert!(text.contains("SocketTranslated   5\n"), "{text}");
    }

    #[test]
    fn links_are_told_by_their_places() {
        let name = |index| (index == 7).then(|| "eth0".to_owned());
        let links = [
            "tcx-7-ingress",
            "cgroup-sendmsg4",
            "tcx-7-egress",
            "cgroup-connect4",
            "tcx-9-ingress",
        ];
        let told: Vec<_> = places(links.into_iter().map(str::to_owned), name)
            .into_iter()
            .map(|place| format!("{}: {}", place.place, place.hooks.join(",")))
            .collect();
        assert_eq!(
            told,
            [
                "interface eth0: egress,ingress",
                "interface number 9: ingress",
                "sockets of the cgroup: connect4,sendmsg4"
            ]
        );
    }
}
