//! One file of the folder: what was read from it, and how long that counts.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proxy_model::{Kind, Object};

use crate::manifest::{self, Broken, Format};

/// What a file that was written over no longer has goes when the file has been quiet for this long: a script may empty,
/// fill and close it in several steps. Another file in its place is complete.
const SETTLE: Duration = Duration::from_secs(1);
/// And in a file that never is quiet, after this.
const SETTLE_AT_MOST: Duration = Duration::from_secs(10);
/// A file that was written while it was read is read again after this.
const TORN: Duration = Duration::from_millis(20);

/// How a file is written, and what is wanted of it.
pub(super) type How = (Format, &'static [Kind]);

/// What is known of a file.
#[derive(Debug, Default)]
pub(super) struct LoadedFile {
    /// The file that was read; `None` if that could not be.
    stamp: Option<Stamp>,
    /// What is in it.
    pub(super) objects: Vec<Arc<Object>>,
    /// What was in it until a moment ago.
    leaving: Option<Leaving>,
    /// What is wrong with it.
    pub(super) mistakes: Vec<String>,
    /// It was written while it was read, and has to be read again.
    torn: bool,
}

#[derive(Debug)]
struct Leaving {
    objects: Vec<Arc<Object>>,
    /// When the first of them was missing.
    since: Duration,
    /// When they go.
    due: Duration,
}

/// Tells whether a file is still the one that was read.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_of_another_file(&self, other: &Self) -> bool {
        (self.device, self.inode) != (other.device, other.inode)
    }
}

impl LoadedFile {
    /// Reads the file again if it changed. `None` if it is gone.
    pub(super) fn load(mut self, path: &Path, how: How, now: Duration) -> Option<Self> {
        let stamp = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => return None,
            // Opening a pipe would wait for somebody who writes into it.
            Ok(metadata) if !metadata.is_file() => return Some(Self::not_a_file(path)),
            Ok(metadata) => Stamp::of(&metadata),
            // Deleted since the folder was listed, or a link to nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return Some(self.unreadable(path, &error)),
        };
        if self.stamp == Some(stamp) && !self.torn {
            self.leaving = self.leaving.filter(|leaving| now < leaving.due);
            return Some(self);
        }
        match fs::read(path) {
            Ok(content) => {
                let torn = fs::metadata(path).map_or(true, |after| Stamp::of(&after) != stamp);
                let moved_here = self.stamp.is_some_and(|old| old.is_of_another_file(&stamp));
                let mut file = self.parse(path, how, &content, now);
                if moved_here && !torn {
                    file.leaving = None;
                }
                Some(Self {
                    stamp: Some(stamp),
                    torn,
                    ..file
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(self.unreadable(path, &error)),
        }
    }

    /// After how much time the file has to be looked at although nothing happens to it.
    pub(super) fn again(&self, now: Duration) -> Option<Duration> {
        let due = self
            .leaving
            .as_ref()
            .map(|leaving| leaving.due.saturating_sub(now));
        due.into_iter().chain(self.torn.then_some(TORN)).min()
    }

    /// What was in the file until a moment ago, and counts unless somebody else has it.
    pub(super) fn leaving(&self) -> &[Arc<Object>] {
        self.leaving.as_ref().map_or(&[], |leaving| &leaving.objects)
    }

    fn not_a_file(path: &Path) -> Self {
        let mistake = format!(
            "{}: is not a file and is left out: a manifest is a file, or a link to one",
            path.display()
        );
        Self {
            mistakes: vec![mistake],
            ..Self::default()
        }
    }

    fn unreadable(self, path: &Path, error: &io::Error) -> Self {
        let mistake = format!(
            "{}: cannot be read ({error}); what was loaded from it before is kept",
            path.display()
        );
        let mut objects = self.objects;
        objects.extend(self.leaving.into_iter().flat_map(|leaving| leaving.objects));
        Self {
            objects,
            mistakes: vec![mistake],
            ..Self::default()
        }
    }

    fn parse(self, path: &Path, (format, kinds): How, content: &[u8], now: Duration) -> Self {
        let read = manifest::read(format, content, kinds);
        let mut objects: Vec<Arc<Object>> = read.objects.into_iter().map(Arc::new).collect();
        let since = self.leaving.as_ref().map_or(now, |leaving| leaving.since);
        let mut missing = self.objects;
        missing.extend(self.leaving.into_iter().flat_map(|leaving| leaving.objects));
        missing.retain(|old| !objects.iter().any(|new| same(old, new)));
        let mut mistakes = mistakes(path, &read.broken, &missing);
        let remark = |remark: &Broken| format!("{}:{}: {}", path.display(), remark.line, remark.what);
        mistakes.extend(read.remarks.iter().map(remark));
        let leaving = if read.broken.is_empty() && !missing.is_empty() {
            Some(Leaving {
                objects: missing,
                since,
                due: (now + SETTLE).min(since + SETTLE_AT_MOST),
            })
        } else {
            objects.append(&mut missing);
            None
        };
        Self {
            objects,
            leaving,
            mistakes,
            ..Self::default()
        }
    }
}

/// A sentence for each broken document; they all keep the same objects.
fn mistakes(path: &Path, broken: &[Broken], kept: &[Arc<Object>]) -> Vec<String> {
    let consequence = match kept.len() {
        0 => "this document is left out".to_owned(),
        n => format!(
            "this document is left out, and {} kept as loaded before: {}",
            if n == 1 {
                "one object is".to_owned()
            } else {
                format!("{n} objects are")
            },
            kept.iter()
                .map(|object| format!("{} {}", object.kind(), object.name()))
                .collect::<Vec<_>>()
                .join(", "),
        ),
    };
    let sentence = |broken: &Broken| {
        let Broken { line, what } = broken;
        format!("{}:{line}: {what}; {consequence}", path.display())
    };
    broken.iter().map(sentence).collect()
}

fn same(one: &Object, other: &Object) -> bool {
    one.kind() == other.kind() && one.name() == other.name()
}
