//! What is built once for all work trees, and goes when none of them has used it for long.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};

/// After so long another content's folder is nobody's any more. Until then another work tree may be at an older commit.
const KEPT: Duration = Duration::from_hours(14 * 24);

/// Sets the time of what is used; what is not there yet gets its own when it is made.
pub(super) fn mark_used(paths: &[PathBuf]) {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let both = Timestamps {
        last_access: now,
        last_modification: now,
    };
    for path in paths {
        // Of a cache that is another user's only the age is not known.
        let _ = utimensat(CWD, path, &both, AtFlags::empty());
    }
}

/// Removes from a folder what has not been used for long, as seen from those entries that are in use now.
pub(super) fn prune(folder: &Path, used: &[PathBuf]) -> Result<()> {
    let Some(now) = used.iter().filter_map(|path| time_of(path)).max() else {
        return Ok(());
    };
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let age = time_of(&path).and_then(|time| now.duration_since(time).ok());
        if used.contains(&path) || !is_content(&path) || age.is_none_or(|age| age < KEPT) {
            continue;
        }
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
        eprintln!(
            "x: removed {}, which nobody has used for two weeks",
            path.display()
        );
    }
    Ok(())
}

fn time_of(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// `NAME-0123456789abcdef`, with or without `.tar`.
fn is_content(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let hash = name
        .trim_end_matches(".tar")
        .rsplit_once('-')
        .map(|(_, hash)| hash);
    hash.is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_is_used_or_young_or_no_content_stays() {
        let folder = std::env::temp_dir().join(format!("weir-cache-{}", std::process::id()));
        let entry = |name: &str| folder.join(name);
        for name in [
            "a-0123456789abcdef",
            "b-0123456789abcdef",
            "c-0123456789abcdef",
            "images",
        ] {
            fs::create_dir_all(entry(name)).unwrap();
            let old = SystemTime::UNIX_EPOCH + Duration::from_hours(1);
            File::open(entry(name)).unwrap().set_modified(old).unwrap();
        }
        fs::write(entry("d-0123456789abcdef.tar"), "").unwrap();
        let used = [entry("a-0123456789abcdef")];
        mark_used(&used);
        // Young, in the eyes of another work tree.
        mark_used(&[entry("b-0123456789abcdef")]);
        prune(&folder, &used).unwrap();
        let mut left: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            left,
            [
                "a-0123456789abcdef",
                "b-0123456789abcdef",
                "d-0123456789abcdef.tar",
                "images"
            ]
        );
    }
}
