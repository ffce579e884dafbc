//! Whether this machine can hold a lab at all.

use std::io::Write;
use std::path::Path;

use crate::kernel_fs;

/// Whether a lab can be made here. A test that needs one returns at once on `false`.
///
/// Without root, or without `ip`, it prints `SKIP` with the reason.
///
/// # Panics
///
/// If a lab cannot be made and `REQUIRE_ROOT=1`, so that a pipeline is not green because its tests did not run.
#[must_use = "a test that ignores this fails on a machine without root"]
pub fn require_root() -> bool {
    let Some(reason) = missing() else {
        return true;
    };
    let required = std::env::var("REQUIRE_ROOT").is_ok_and(|value| value == "1");
    assert!(!required, "REQUIRE_ROOT=1, but {reason}");
    // Straight to the file, because the test harness keeps what `eprintln!` says to itself.
    let line = format!("SKIP: {reason}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    false
}

/// What this machine lacks for a lab, as a sentence with the way out; `None` if nothing.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("this needs root: run it with sudo".to_owned());
    }
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("ip").is_file()));
    if !found {
        return Some("this needs the `ip` command: install iproute2".to_owned());
    }
    if !Path::new("/proc/self/ns/net").exists() {
        return Some("this kernel has no network namespaces".to_owned());
    }
    if let Err(reason) = kernel_fs::cgroup2_root() {
        return Some(format!("{reason:#}"));
    }
    None
}
