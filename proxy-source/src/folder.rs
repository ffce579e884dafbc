//! Objects from a folder of manifests, watched for changes.
//!
//! ```text
//!  DIR ──scan──▶ files that changed ──▶ documents ──▶ objects ──▶ what differs from the last scan ──▶ changes
//!   ▲
//!   └── inotify, coalesced; and every 30 s, because a file may be a link to somewhere else
//! ```
//!
//! What can go wrong costs as little as it can (docs/decisions/0011):
//! * A file is not read while it is written, and what a file that was written over no longer has is kept until the file
//!   has been quiet for a second: `kubectl get -o yaml > FILE` empties the file long before it fills it.
//! * A broken document costs that document. While a file has one, what was loaded from the file before and is not in
//!   it now is kept: a slip of the pen must not delete a working Service.
//! * A folder that is missing deletes nothing.
//! * An object in two files is taken from the first file by name; the other is named in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proxy_model::{Change, Kind, Object, ObjectName};

use self::file::LoadedFile;
use super::manifest::Format;
use super::{Changes, Source, SourceError};
use crate::Reported;

mod file;
mod watch;

/// The folder source.
#[derive(Debug)]
pub struct Folder {
    directory: PathBuf,
    kinds: &'static [Kind],
}

impl Folder {
    /// Of the objects of some kinds in the manifests of `directory`, which need not exist yet.
    pub fn new(directory: PathBuf, kinds: &'static [Kind]) -> Self {
        Self { directory, kinds }
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
        Box::pin(watch::run(Scanner::new(self.directory, self.kinds), changes))
    }
}

type Key = (Kind, ObjectName);

/// Objects, shared with the files that they are from: most are the same ones from scan to scan.
type Known = BTreeMap<Key, Arc<Object>>;

/// What a look at the folder may tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Look {
    /// All.
    AtAll,
    /// Nothing, if something is missing: that may be in the file that is written next.
    AtMore,
}

/// What is known of the folder, and the way to know more.
#[derive(Debug)]
struct Scanner {
    directory: PathBuf,
    kinds: &'static [Kind],
    files: BTreeMap<OsString, LoadedFile>,
    /// What was sent last; `None` before the first complete scan.
    sent: Option<Known>,
    mistakes: Reported,
}

/// The result of a scan that could look at the whole folder.
#[derive(Debug, Default)]
struct Scan {
    changes: Changes,
    /// Look again after this much time, whatever happens.
    again: Option<Duration>,
}

impl Scanner {
    fn new(directory: PathBuf, kinds: &'static [Kind]) -> Self {
        Self {
            directory,
            kinds,
            files: BTreeMap::new(),
            sent: None,
            mistakes: Reported::default(),
        }
    }

    /// Looks at the whole folder, reads what changed, and tells the difference to what was sent before. What is in
    /// the files named in `writing` is not complete now, and is left for a later scan. `now` is monotonic.
    fn scan(&mut self, now: Duration, writing: &BTreeSet<OsString>, look: Look) -> io::Result<Scan> {
        let mut before = std::mem::take(&mut self.files);
        let names = match manifest_names(&self.directory) {
            Ok(names) => names,
            Err(error) => {
                self.files = before;
                return Err(error);
            }
        };
        let mut again = None;
        for (name, format) in names {
            let known = before.remove(&name).unwrap_or_default();
            // The first scan has nothing better to offer than what is there.
            if self.sent.is_some() && writing.contains(&name) {
                self.files.insert(name, known);
            } else if let Some(file) = known.load(&self.directory.join(&name), (format, self.kinds), now) {
                again = again.into_iter().chain(file.again(now)).min();
                self.files.insert(name, file);
            }
        }
        let (objects, duplicates) = self.objects();
        let changes = difference(self.sent.as_ref(), &objects, self.kinds);
        if look == Look::AtMore && changes.iter().any(|change| matches!(change, Change::Delete(..))) {
            return Ok(Scan {
                again: Some(watch::QUIET),
                ..Scan::default()
            });
        }
        let mistakes = self.files.values().flat_map(|file| file.mistakes.iter());
        self.mistakes
            .replace(mistakes.cloned().chain(duplicates).collect());
        self.sent = Some(objects);
        Ok(Scan { changes, again })
    }

    /// All objects, each once, and a sentence for each that is there twice.
    fn objects(&self) -> (Known, Vec<String>) {
        let mut owners: BTreeMap<Key, (&OsString, &Arc<Object>)> = BTreeMap::new();
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
        let mut objects: Known = owners
            .into_iter()
            .map(|(key, (_, object))| (key, Arc::clone(object)))
            .collect();
        for object in self.files.values().flat_map(LoadedFile::leaving) {
            let key = (object.kind(), object.name());
            objects.entry(key).or_insert_with(|| Arc::clone(object));
        }
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

/// What to send: everything after the first scan, and only what differs after that.
fn difference(sent: Option<&Known>, now: &Known, kinds: &[Kind]) -> Changes {
    let Some(sent) = sent else {
        return kinds
            .iter()
            .map(|kind| {
                let objects = now.values().filter(|object| object.kind() == *kind);
                Change::Replace(*kind, objects.map(|object| Object::clone(object)).collect())
            })
            .collect();
    };
    let gone = sent.keys().filter(|key| !now.contains_key(key));
    let gone = gone.map(|(kind, name)| Change::Delete(*kind, name.clone()));
    let same = |old: &Arc<Object>, new: &Arc<Object>| Arc::ptr_eq(old, new) || old == new;
    let put = now
        .iter()
        .filter(|(key, object)| !sent.get(key).is_some_and(|old| same(old, object)));
    let put = put.map(|(_, object)| Change::Put(Object::clone(object)));
    gone.chain(put).collect()
}

#[cfg(test)]
mod tests;
