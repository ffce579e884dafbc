//! Finds and opens the cgroup v2 folder that the socket hooks are attached to.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::attach::AttachError;

/// A cgroup.
pub(super) struct Cgroup {
    pub(super) path: PathBuf,
    pub(super) folder: File,
    pub(super) id: u64,
}

impl Cgroup {
    /// Opens a folder of the v2 hierarchy.
    pub(super) fn open(path: PathBuf) -> Result<Self, AttachError> {
        let open = || {
            let folder = File::open(&path)?;
            // On cgroup2 the number of a folder's inode is the cgroup's id (Linux 5.5, commit 40430452fd5d).
            let id = folder.metadata()?.ino();
            Ok((folder, id))
        };
        let (folder, id) = open().map_err(|error: io::Error| {
            AttachError::Cgroup(format!("cannot open the cgroup {}: {error}", path.display()))
        })?;
        Ok(Self { path, folder, id })
    }
}

/// The mount point of cgroup v2 in `/proc/self/mountinfo` that shows the most, or the first of such.
///
/// `36 24 0:31 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw`
pub(crate) fn cgroup_root(mounts: &str) -> Option<PathBuf> {
    mounts
        .lines()
        .filter_map(|line| {
            let (place, kind) = line.split_once(" - ")?;
            let mut place = place.split(' ').skip(3);
            let (root, point) = (place.next()?, place.next()?);
            (kind.split(' ').next()? == "cgroup2").then(|| (shows_less(root), unescape(point)))
        })
        .min_by_key(|(less, _)| *less)
        .map(|(_, point)| PathBuf::from(point))
}

/// Orders the roots of mounts: above the root of our cgroup namespace (`/../..`), that root itself, folders below it.
fn shows_less(root: &str) -> (bool, usize) {
    let above = root.split('/').skip(1).all(|part| part == "..");
    if above {
        (false, usize::MAX - root.len())
    } else {
        (true, root.len())
    }
}

/// Spaces and the like are octal there: `\040`.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(code) = code {
            out.push(char::from(code));
            out.push_str(part.get(3..).unwrap_or_default());
        } else {
            out.push('\\');
            out.push_str(part);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_that_shows_the_whole_hierarchy_wins() {
        let mounts = "30 24 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      35 30 0:30 /pods /mnt/pods rw - cgroup2 cgroup2 rw\n\
                      36 30 0:30 / /sys/fs/cg\\040roup rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup_root(mounts), Some(PathBuf::from("/sys/fs/cg roup")));
        let hybrid = "30 25 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      36 25 0:31 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup_root(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let container = "36 25 0:31 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
                         37 25 0:31 /../pod-b /mnt rw - cgroup2 cgroup2 rw\n\
                         38 25 0:31 /../.. /host/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup_root(container), Some(PathBuf::from("/host/cgroup")));
        assert_eq!(cgroup_root("30 24 0:27 / /sys rw - sysfs sysfs rw\n"), None);
    }
}
