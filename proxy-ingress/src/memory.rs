//! How much memory is in use, and whether that is too much: then requests are refused with 503 before the kernel ends the process
//! with all its connections.
//!
//! What counts is what the kernel would count: in a control group with a limit all of the group but the part of the page cache
//! that it would give up at once, so the buffers of sockets too; elsewhere the process's resident memory.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use crate::engine::View;

/// The allocator asks for pages of 2 MiB, of which a process as small as this one leaves much unused.
pub fn in_small_pages() {
    // Where the kernel does not do it, memory is a little more.
    let _refused = rustix::thread::disable_transparent_huge_pages(true);
}

/// Between two looks.
const TICK: Duration = Duration::from_millis(250);

/// How much there may be, and where to look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Budget {
    bytes: u64,
    /// The control group; none: the process.
    group: Option<PathBuf>,
}

impl Budget {
    /// What was asked for, or nine tenths of what the control group may have. None, if that has no limit.
    pub fn find(asked: Option<u64>) -> Option<Self> {
        let group = own_group(&std::fs::read_to_string("/proc/self/cgroup").ok()?);
        let limit = group.as_deref().and_then(limit);
        let bytes = asked.or(limit.map(|limit| limit / 10 * 9))?;
        Some(Self {
            bytes,
            group: group.filter(|_| limit.is_some()),
        })
    }

    /// What is in use.
    fn used(&self) -> Option<u64> {
        let Some(group) = &self.group else {
            return resident(&std::fs::read_to_string("/proc/self/status").ok()?);
        };
        let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
        working_set(&read("memory.current")?, &read("memory.stat")?)
    }
}

/// Tells workers, for ever.
pub(crate) async fn watch(budget: Budget, view: View) {
    let mut before = false;
    loop {
        let used = budget.used().unwrap_or_default();
        let short = used >= budget.bytes;
        view.0.short.store(short, Ordering::Relaxed);
        if short != before {
            tell(short, used >> 20, budget.bytes >> 20);
        }
        before = short;
        sleep(TICK).await;
    }
}

fn tell(short: bool, used: u64, most: u64) {
    if short {
        tracing::warn!(
            "memory is short ({used} of {most} MiB): requests are answered 503; give the container more, or --memory-budget"
        );
    } else {
        tracing::info!("memory is no longer short ({used} of {most} MiB)");
    }
}

/// The folder of the process's control group, in the one hierarchy of version 2.
fn own_group(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new("/sys/fs/cgroup").join(path))
}

/// The least that the group or one above it may have. A container sees only its own.
fn limit(group: &Path) -> Option<u64> {
    let groups = group
        .ancestors()
        .take_while(|at| at.starts_with("/sys/fs/cgroup"));
    let limits = groups.filter_map(|at| std::fs::read_to_string(at.join("memory.max")).ok());
    limits.filter_map(|text| text.trim().parse().ok()).min()
}

/// As kubelet reckons it: without files that nobody has used for a while.
fn working_set(current: &str, stat: &str) -> Option<u64> {
    let current: u64 = current.trim().parse().ok()?;
    let cached = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
    let cached = cached.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0);
    Some(current.saturating_sub(cached))
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_that_of_version_two() {
        let text = "12:memory:/old\n0::/kubepods/pod1/c1\n";
        let folder = PathBuf::from("/sys/fs/cgroup/kubepods/pod1/c1");
        assert_eq!(own_group(text), Some(folder));
        assert_eq!(own_group("0::/\n"), Some(PathBuf::from("/sys/fs/cgroup/")));
        assert_eq!(own_group("4:memory:/x\n"), None);
    }

    #[test]
    fn what_the_kernel_would_give_up_is_not_counted() {
        let stat = "anon 5000\ninactive_file 300\nactive_file 400\n";
        assert_eq!(working_set("6000\n", stat), Some(5700));
        assert_eq!(working_set("6000\n", "anon 1\n"), Some(6000));
        assert_eq!(working_set("max\n", stat), None);
    }

    #[test]
    fn the_process_tells_what_is_resident() {
        assert_eq!(
            resident("Name:\tx\nVmRSS:\t    2048 kB\nVmData: 1 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn what_is_asked_for_is_the_budget() {
        let asked = Budget::find(Some(1 << 20)).unwrap();
        assert_eq!(asked.bytes, 1 << 20);
        assert!(asked.used().unwrap() > 1 << 20);
    }
}
