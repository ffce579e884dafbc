//! Objects from a folder of manifests, watched for changes.
//!
//! ```text
//!  DIR ──scan──▶ files that changed ──▶ documents ──▶ objects ──▶ what differs from the last scan ──▶ changes
//!   ▲
//!   └── inotify, coalesced; and every 30 s, because a file may be a link to somewhere else
//! ```
//!
//! What can go wrong costs as little as it can (docs/decisions/0011):
//! * A broken document costs that document. While a file has one, what was loaded from the file before and is not in
//!   it now is kept: a slip of the pen must not delete a working Service.
//! * A folder that is missing deletes nothing.
//! * An object in two files is taken from the first file by name; the other is named in the log.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use proxy_model::{Change, Kind, Object, ObjectName};

use super::manifest::{self, Format};
use super::{Changes, Source, SourceError};
use crate::report::Reported;

mod watch;

/// The folder source.
#[derive(Debug)]
pub struct Folder {
    directory: PathBuf,
}

impl Folder {
    /// Of the manifests in `directory`, which need not exist yet.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }
}

impl Source for Folder {
    fn describe(&self) -> String {
        format!("the manifests in {}", self.directory.display())
    }

    fn run(
        self: Box<Self>,
        changes: tokio::sync::mpsc::Sender<Changes>,
    ) -> futures::future::BoxFuture<'static, Result<(), SourceError>> {
        Box::pin(watch::run(Scanner::new(self.directory), changes))
    }
}

type Key = (Kind, ObjectName);

/// What is known of the folder, and the way to know more.
#[derive(Debug)]
struct Scanner {
    directory: PathBuf,
    files: BTreeMap<OsString, LoadedFile>,
    /// What was sent last; `None` before the first complete scan.
    sent: Option<BTreeMap<Key, Object>>,
    mistakes: Reported,
}

#[derive(Debug, Default)]
struct LoadedFile {
    stamp: Option<Stamp>,
    objects: Vec<Object>,
    mistakes: Vec<String>,
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
}

/// The result of a scan that could look at the whole folder.
#[derive(Debug, Default)]
struct Scan {
    changes: Changes,
    /// A file was written while it was read: look again soon.
    torn: bool,
}

impl Scanner {
    fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            files: BTreeMap::new(),
            sent: None,
            mistakes: Reported::default(),
        }
    }

    /// Looks at the whole folder, reads what changed, and tells the difference to what was sent before.
    fn scan(&mut self) -> io::Result<Scan> {
        let mut torn = false;
        let mut before = std::mem::take(&mut self.files);
        let names = match manifest_names(&self.directory) {
            Ok(names) => names,
            Err(error) => {
                self.files = before;
                return Err(error);
            }
        };
        for (name, format) in names {
            let known = before.remove(&name).unwrap_or_default();
            let path = self.directory.join(&name);
            if let Some((file, file_torn)) = load(&path, format, known) {
                torn |= file_torn;
                self.files.insert(name, file);
            }
        }
        let (objects, duplicates) = self.objects();
        let mistakes = self.files.values().flat_map(|file| file.mistakes.iter());
        self.mistakes
            .replace(mistakes.cloned().chain(duplicates).collect());
        let changes = difference(self.sent.as_ref(), &objects);
        self.sent = Some(objects);
        Ok(Scan { changes, torn })
    }

    /// All objects, each once, and a sentence for each that is there twice.
    fn objects(&self) -> (BTreeMap<Key, Object>, Vec<String>) {
        let mut owners: BTreeMap<Key, (&OsString, &Object)> = BTreeMap::new();
        let mut duplicates = Vec::new();
        for (name, file) in &self.files {
            for object in &file.objects {
                let key = (object.kind(), object.name());
                if let Some((owner, _)) = owners.get(&key) {
                    duplicates.push(format!(
                        "{}: {} {} is in {} already, which wins: remove one of them",
                        self.directory.join(name).display(),
                        key.0,
                        key.1,
                        Path::new(owner).display(),
                    ));
                } else {
                    owners.insert(key, (name, object));
                }
            }
        }
        let objects = owners
            .into_iter()
            .map(|(key, (_, object))| (key, object.clone()))
            .collect();
        (objects, duplicates)
    }
}

/// The manifests of a folder, in the order of their names.
fn manifest_names(directory: &Path) -> io::Result<BTreeMap<OsString, Format>> {
    let mut names = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if let Some(format) = Format::of(&name.to_string_lossy()) {
            names.insert(name, format);
        }
    }
    Ok(names)
}

/// Reads a file if it changed; the flag says that it changed again meanwhile. `None` if it is gone.
fn load(path: &Path, format: Format, known: LoadedFile) -> Option<(LoadedFile, bool)> {
    let unreadable = |known: LoadedFile, error: &io::Error| {
        let mistakes = vec![format!(
            "{}: cannot be read ({error}); what was loaded from it before is kept",
            path.display()
        )];
        let file = LoadedFile {
            stamp: None,
            mistakes,
            ..known
        };
        Some((file, false))
    };
    let stamp = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return None,
        // Opening a pipe would wait for somebody who writes into it.
        Ok(metadata) if !metadata.is_file() => {
            let mistake = format!(
                "{}: is not a file and is left out: a manifest is a file, or a link to one",
                path.display()
            );
            let file = LoadedFile {
                mistakes: vec![mistake],
                ..LoadedFile::default()
            };
            return Some((file, false));
        }
        Ok(metadata) => Stamp::of(&metadata),
        // Deleted since the folder was listed, or a link to nowhere.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return unreadable(known, &error),
    };
    if known.stamp == Some(stamp) {
        return Some((known, false));
    }
    match fs::read(path) {
        Ok(content) => {
            let torn = fs::metadata(path).map_or(true, |after| Stamp::of(&after) != stamp);
            let mut file = parse(path, format, &content, known);
            // A torn read counts for nothing later: the next scan reads the file again.
            file.stamp = (!torn).then_some(stamp);
            Some((file, torn))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => unreadable(known, &error),
    }
}

fn parse(path: &Path, format: Format, content: &[u8], known: LoadedFile) -> LoadedFile {
    let read = manifest::read(format, content);
    let mut objects = read.objects;
    let mut kept = Vec::new();
    if !read.broken.is_empty() {
        kept = known.objects;
        kept.retain(|old| !objects.iter().any(|new| same(old, new)));
    }
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
    objects.append(&mut kept);
    let mistakes = read
        .broken
        .iter()
        .map(|broken| {
            format!(
                "{}:{}: {}; {consequence}",
                path.display(),
                broken.line,
                broken.what
            )
        })
        .collect();
    LoadedFile {
        stamp: None,
        objects,
        mistakes,
    }
}

fn same(one: &Object, other: &Object) -> bool {
    one.kind() == other.kind() && one.name() == other.name()
}

/// What to send: everything after the first scan, and only what differs after that.
fn difference(sent: Option<&BTreeMap<Key, Object>>, now: &BTreeMap<Key, Object>) -> Changes {
    let Some(sent) = sent else {
        return [Kind::Node, Kind::EndpointSlice, Kind::Service]
            .into_iter()
            .map(|kind| {
                let objects = now.values().filter(|object| object.kind() == kind);
                Change::Replace(kind, objects.cloned().collect())
            })
            .collect();
    };
    let gone = sent.keys().filter(|key| !now.contains_key(key));
    let gone = gone.map(|(kind, name)| Change::Delete(*kind, name.clone()));
    let put = now.iter().filter(|(key, object)| sent.get(key) != Some(object));
    let put = put.map(|(_, object)| Change::Put(object.clone()));
    gone.chain(put).collect()
}

#[cfg(test)]
mod tests;
