//! What a process and its children have used: CPU time and memory, from /proc.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// Memory of some processes, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Memory {
    /// Resident; what processes share is counted for each.
    pub(crate) rss: u64,
    /// Resident; what processes share is divided among them.
    pub(crate) pss: u64,
}

/// Nanoseconds that all threads of a process and its children have been on a CPU, softirqs on the way included.
///
/// It is what `utime` and `stime` add up to, without their rounding to ticks.
pub(crate) fn cpu_nanos(root: u32) -> Result<u64> {
    let mut sum = 0;
    for pid in family(root)? {
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        for thread in threads.flatten() {
            // A thread may have ended since.
            let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            sum += first_number(&text);
        }
    }
    Ok(sum)
}

/// Memory of a process and its children.
pub(crate) fn memory(root: u32) -> Result<Memory> {
    let mut sum = Memory::default();
    for pid in family(root)? {
        let path = format!("/proc/{pid}/smaps_rollup");
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let memory = parse_rollup(&text).with_context(|| format!("{path} is not as expected"))?;
        sum.rss += memory.rss;
        sum.pss += memory.pss;
    }
    Ok(sum)
}

/// A process and all that come from it.
pub(crate) fn family(root: u32) -> Result<Vec<u32>> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(parent) = parent(&entry.path()) {
            parents.insert(pid, parent);
        }
    }
    Ok(descendants(root, &parents))
}

fn parent(process: &Path) -> Option<u32> {
    parse_parent(&fs::read_to_string(process.join("stat")).ok()?)
}

/// `ppid` of /proc/PID/stat. The name before it may hold spaces and brackets.
fn parse_parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn descendants(root: u32, parents: &BTreeMap<u32, u32>) -> Vec<u32> {
    let mut all = vec![root];
    let mut at = 0;
    while let Some(parent) = all.get(at).copied() {
        all.extend(
            parents
                .iter()
                .filter(|(_, of)| **of == parent)
                .map(|(pid, _)| *pid),
        );
        at += 1;
    }
    all
}

fn first_number(text: &str) -> u64 {
    text.split(' ')
        .next()
        .and_then(|first| first.parse().ok())
        .unwrap_or(0)
}

fn parse_rollup(text: &str) -> Option<Memory> {
    let value = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kilobytes * 1024)
    };
    Some(Memory {
        rss: value("Rss:")?,
        pss: value("Pss:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_hide_the_parent() {
        assert_eq!(parse_parent("42 (a) b) S 7 42 42 0"), Some(7));
        assert_eq!(parse_parent("42"), None);
    }

    #[test]
    fn grandchildren_are_found_and_strangers_are_not() {
        let parents = BTreeMap::from([(2, 1), (10, 2), (11, 10), (12, 3), (3, 1)]);
        assert_eq!(descendants(2, &parents), [2, 10, 11]);
    }

    #[test]
    fn memory_is_in_bytes() {
        let text = "5600-7ffd ---p 0 00:00 0 [rollup]\nRss:  2048 kB\nPss:   1000 kB\nPss_Dirty:  10 kB\n";
        let expected = Memory {
            rss: 2048 * 1024,
            pss: 1000 * 1024,
        };
        assert_eq!(parse_rollup(text), Some(expected));
        assert_eq!(parse_rollup("Rss: many\n"), None);
    }

    #[test]
    fn this_process_has_used_something() {
        let own = std::process::id();
        assert!(cpu_nanos(own).unwrap() > 0);
        let memory = memory(own).unwrap();
        assert!(memory.pss > 0 && memory.pss <= memory.rss);
    }
}
