//! What an operator asks: each command reads the pinned maps, whether or not an agent runs.

pub mod affinity;
pub mod backends;
pub mod cleanup;
pub mod flows;
pub mod monitor;
pub mod services;
pub mod status;
mod view;

use std::fmt::Display;

use anyhow::{Context, Result};
use proxy_daemon::answer;
use proxy_daemon::table::Table;
use serde::Serialize;

use crate::config::{NamespaceFlags, Output, OutputFlags};

/// A list in JSON, as kubectl writes one.
#[derive(Serialize)]
struct List<'i, T> {
    items: &'i [T],
}

/// Answers with a list: a table of its rows, or JSON.
fn answer<T: Serialize>(flags: &OutputFlags, items: &[T], table: impl FnOnce(bool) -> Table) -> Result<()> {
    match flags.output {
        Output::Json => print_json(&List { items }),
        Output::Table => print(&table(false).render(!flags.no_headers)),
        Output::Wide => print(&table(true).render(!flags.no_headers)),
    }
}

fn print_json(value: &impl Serialize) -> Result<()> {
    answer::print_json(value).context("writing the answer")
}

fn print(text: &str) -> Result<()> {
    answer::print(text).context("writing the answer")
}

/// Says that there is nothing to show where only people see it, as kubectl does.
fn say_if_empty<T>(flags: &OutputFlags, items: &[T], what: &str) {
    if items.is_empty() && flags.output != Output::Json {
        eprintln!("No {what} found.");
    }
}

impl NamespaceFlags {
    fn wants(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
    }
}

/// `address:port`, with brackets around IPv6.
fn socket(address: impl Into<std::net::IpAddr>, port: u16) -> String {
    std::net::SocketAddr::new(address.into(), port).to_string()
}

/// A time span as kubectl writes it: `17s`, `5m`, `3h`, `2d`.
fn short_time(seconds: u32) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The protocol's name, or its number where it has none here.
fn protocol(number: u8) -> String {
    proxy_common::Protocol::from_number(number).map_or_else(|| number.to_string(), |known| known.to_string())
}

/// The name of a code in a row, or the number where this build does not know it.
fn word(name: Option<&'static str>, code: impl Display) -> String {
    name.map_or_else(|| code.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_like_those_of_kubectl() {
        let times = [0, 119, 120, 7199, 7200, 172_800].map(short_time);
        assert_eq!(times, ["0s", "119s", "2m", "119m", "2h", "2d"]);
    }
}
