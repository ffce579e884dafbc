//! Removes what killed runs left behind.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::kernel_fs::{DISK, RUN, cgroup_roots, remove_cgroup, remove_tree};
use crate::netns;

/// Removes processes, cgroups, namespaces, mounts and files of labs with this prefix whose process is dead.
pub fn sweep(prefix: &str) -> Result<()> {
    let mut result = Ok(());
    for root in cgroup_roots()? {
        for name in names(&root) {
            let dead = name
                .strip_prefix("weir-lab-")
                .is_some_and(|id| is_dead(prefix, id));
            if dead {
                result = result.and(remove_cgroup(&root.join(&name)));
            }
        }
    }
    for name in names(Path::new(netns::NAMES)) {
        if is_dead(prefix, &name) {
            result = result.and(netns::remove(&name));
        }
    }
    for folder in [RUN, DISK].map(Path::new) {
        for name in names(folder) {
            if is_dead(prefix, &name) {
                result = result.and(remove_tree(&folder.join(&name)));
            }
        }
    }
    result
}

/// Whether `name` begins with `PREFIX-PID` of a process that is no more.
fn is_dead(prefix: &str, name: &str) -> bool {
    owner(prefix, name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// The PID in `PREFIX-PID` or `PREFIX-PID-…`.
fn owner(prefix: &str, name: &str) -> Option<u32> {
    let rest = name.strip_prefix(prefix)?.strip_prefix('-')?;
    rest.split('-').next()?.parse().ok()
}

fn names(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn the_owner_is_read_from_the_name() {
        assert_eq!(owner("demo", "demo-42-n1"), Some(42));
        assert_eq!(owner("demo", "demo-42"), Some(42));
        assert_eq!(owner("demo", "demo-node-42-n1"), None);
        assert_eq!(owner("demo", "other-42-n1"), None);
        assert_eq!(owner("demo-node", "demo-node-42-3-n1"), Some(42));
    }
}
