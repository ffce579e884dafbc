//! What node tests have in common: the standard lab, clients on either hook, and traffic that the lab's peer has not.
//!
//! A test makes a [`World`] (two nodes with an agent each, pods, a host outside) and drops it at its end. Real
//! programs, real sockets, real packets: nothing here knows the maps' layout.

pub mod ask;
pub mod bulk;
mod by;
pub mod counters;
pub mod flood;
pub mod probe;
pub mod sctp;
pub mod services;
pub mod trace;
mod world;

pub use by::{By, Load};
pub use world::{World, WorldOptions, services_json};

use std::path::Path;
use std::time::Duration;

use weir_lab::peer::Report;

/// Whether the test can run here: root, and these commands. Like [`weir_lab::require_root`], it says why not, and
/// fails instead with `REQUIRE_ROOT=1`.
///
/// # Panics
///
/// If a command is missing and `REQUIRE_ROOT=1`.
#[must_use = "a test that ignores this fails on a machine without the commands"]
pub fn can_run(commands: &[&str]) -> bool {
    if !weir_lab::require_root() {
        return false;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |command: &str| std::env::split_paths(&path).any(|dir| dir.join(command).is_file());
    let Some(missing) = commands.iter().find(|command| !found(command)) else {
        return true;
    };
    let required = std::env::var("REQUIRE_ROOT").is_ok_and(|value| value == "1");
    assert!(!required, "REQUIRE_ROOT=1, but there is no command {missing}");
    println!("SKIP: this test needs the command {missing}");
    false
}

/// One line of figures about a report.
pub fn figures(what: &str, report: &Report) {
    println!(
        "{what}: {} of {} in {} ms, per backend {:?}, slowest {} us, errors {}{}",
        report.ok,
        report.attempted,
        report.elapsed_ms,
        report.backends,
        report.latency.max,
        report.errors.total(),
        if report.errors.total() == 0 {
            String::new()
        } else {
            format!(" {:?} {:?}", report.errors, report.error_texts)
        },
    );
}

/// Milliseconds, for figures.
pub fn millis(duration: Duration) -> u128 {
    duration.as_millis()
}

/// The names in a folder, sorted; none if it is not there.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
