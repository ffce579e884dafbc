//! Finds the cgroup v2 folder that the socket hooks are attached to.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FsWord, statfs};

use super::attach::AttachError;

/// `CGROUP2_SUPER_MAGIC` of the uapi.
const CGROUP2_MAGIC: FsWord = 0x6367_7270;

/// A cgroup.
pub(super) struct Cgroup {
    pub(super) path: PathBuf,
    pub(super) folder: File,
    pub(super) id: u64,
}

impl Cgroup {
    /// The cgroup that was asked for, or the root of the v2 hierarchy.
    pub(super) fn find(asked: Option<&Path>) -> Result<Self, AttachError> {
        let path = find(asked)?;
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

fn find(asked: Option<&Path>) -> Result<PathBuf, AttachError> {
    let Some(path) = asked else {
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|error| AttachError::Cgroup(format!("cannot read /proc/self/mountinfo: {error}")))?;
        return root(&mounts).ok_or_else(|| {
            AttachError::Cgroup(
                "no cgroup v2 hierarchy is mounted: run `mount -t cgroup2 none /sys/fs/cgroup/unified`, or name a \
                 folder of one with --cgroup"
                    .to_owned(),
            )
        });
    };
    let kind = statfs(path).map_err(|error| {
        AttachError::Cgroup(format!(
            "cannot look at the cgroup {}: {error}; name another with --cgroup",
            path.display()
        ))
    })?;
    if kind.f_type == CGROUP2_MAGIC {
        return Ok(path.to_owned());
    }
    Err(AttachError::Cgroup(format!(
        "{} is not a folder of the cgroup v2 hierarchy: on hosts with both versions that is often /sys/fs/cgroup/unified",
        path.display()
    )))
}

/// The mount point of cgroup v2 in `/proc/self/mountinfo` that shows the most: the shortest root, then the first.
///
/// `36 24 0:31 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw`
fn root(mounts: &str) -> Option<PathBuf> {
    mounts
        .lines()
        .filter_map(|line| {
            let (place, kind) = line.split_once(" - ")?;
            let mut place = place.split(' ').skip(3);
            let (root, point) = (place.next()?, place.next()?);
            (kind.split(' ').next()? == "cgroup2").then(|| (root.len(), unescape(point)))
        })
        .min_by_key(|(length, _)| *length)
        .map(|(_, point)| PathBuf::from(point))
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
        assert_eq!(root(mounts), Some(PathBuf::from("/sys/fs/cg roup")));
        assert_eq!(root("30 24 0:27 / /sys rw - sysfs sysfs rw\n"), None);
    }

    #[test]
    fn a_folder_elsewhere_is_refused() {
        let error = find(Some(Path::new("/proc"))).unwrap_err().to_string();
        assert!(
            error.contains("not a folder of the cgroup v2 hierarchy"),
            "{error}"
        );
    }
}
