//! Controllers of the cgroup v2 hierarchy, on machines that have no other: a kubelet hands them to its pods.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Those that a kubelet asks for.
const WANTED: [&str; 6] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"];

/// Sees to it that directories below this one get the controllers that the machine has: each directory on the way from
/// the hierarchy's root hands down what it was handed.
pub(super) fn hand_down(cgroup: &Path) -> Result<()> {
    let hierarchy = cgroup.ancestors().take_while(|folder| has_controllers(folder));
    let mut folders: Vec<_> = hierarchy.collect();
    folders.reverse();
    for folder in folders {
        let read = |file: &str| {
            let path = folder.join(file);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let own = "cgroup.subtree_control";
        for controller in missing(&read("cgroup.controllers")?, &read(own)?) {
            fs::write(folder.join(own), format!("+{controller}")).with_context(|| {
                format!(
                    "{} does not hand the controller {controller} to directories below, which pods need",
                    folder.display()
                )
            })?;
        }
    }
    Ok(())
}

/// Above the hierarchy's root there is no such file.
fn has_controllers(folder: &Path) -> bool {
    folder.join("cgroup.controllers").exists()
}

/// Controllers that a directory has, and does not yet hand down. One that the kernel lacks is one that no pod gets.
fn missing<'a>(has: &'a str, hands_down: &str) -> Vec<&'a str> {
    let given: Vec<_> = hands_down.split_whitespace().collect();
    has.split_whitespace()
        .filter(|controller| WANTED.contains(controller) && !given.contains(controller))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_and_not_yet_given_is_given() {
        assert_eq!(
            missing("cpuset cpu io memory pids rdma misc", "cpu pids\n"),
            ["cpuset", "io", "memory"]
        );
        assert_eq!(missing("", ""), [""; 0]);
    }

    /// Directories of a plain file system, in which a file takes every write.
    #[test]
    fn each_directory_on_the_way_hands_down() {
        let root = std::env::temp_dir().join(format!("weir-cgroups-{}", std::process::id()));
        let node = root.join("lab/n1");
        fs::create_dir_all(&node).unwrap();
        for folder in node.ancestors().take(3) {
            fs::write(folder.join("cgroup.controllers"), "memory\n").unwrap();
            fs::write(folder.join("cgroup.subtree_control"), "").unwrap();
        }
        hand_down(&node).unwrap();
        for folder in node.ancestors().take(3) {
            let written = fs::read_to_string(folder.join("cgroup.subtree_control")).unwrap();
            assert_eq!(written, "+memory", "{}", folder.display());
        }
        // One that cannot is an error that says which.
        fs::remove_file(root.join("lab/cgroup.subtree_control")).unwrap();
        fs::create_dir(root.join("lab/cgroup.subtree_control")).unwrap();
        assert!(hand_down(&node).is_err());
        fs::remove_dir_all(&root).unwrap();
    }
}
