//! When to look at the folder: at once when a file is complete or gone, and every 30 s anyway.
//!
//! ```text
//!  open(O_CREAT) ─▶ CREATE, or open(O_TRUNC) ─▶ MODIFY: the file is being written ─▶ … ─▶ CLOSE_WRITE: look
//!  rename, link, unlink ───────────────────────────────────────────────────────────────────────────▶ look
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::{Look, Scan, Scanner};
use crate::clock;
use crate::{Changes, SourceError};

/// Files that change together are read together; this much silence means that it was the last of them. A change after silence is
/// read at once, and counts unless something is missing from now on: that may be in the file that comes next.
pub(super) const QUIET: Duration = Duration::from_millis(20);
/// A folder that changes all the time is read at least this often.
const QUIET_AT_MOST: Duration = Duration::from_millis(200);
/// Catches what inotify does not see: files that are links to elsewhere, and some network file systems.
const RESCAN: Duration = Duration::from_secs(30);
/// Somebody who keeps a file open and has written nothing for this long may never close it: it is read as it is.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a missing folder is looked for.
const RETRY: Duration = Duration::from_secs(1);

/// Scans until the receiver is gone.
pub(super) async fn run(mut scanner: Scanner, changes: mpsc::Sender<Changes>) -> Result<(), SourceError> {
    let mut watch = FolderWatch::default();
    let mut missing = false;
    let mut look = Look::AtAll;
    loop {
        // Armed before the scan, so that no change falls between the two.
        watch.arm(&scanner.directory);
        let path = scanner.directory.display().to_string();
        let now = clock::monotonic();
        let writing = watch.writing(now);
        let (back, scan) = tokio::task::spawn_blocking(move || {
            let scan = scanner.scan(now, &writing, look);
            (scanner, scan)
        })
        .await
        .map_err(|_| SourceError::Ended(path.clone()))?;
        scanner = back;
        watch.looked = Some(Instant::now());
        log_folder(&path, &scan, &mut missing);
        let wait = match scan {
            Ok(Scan {
                changes: found,
                again,
            }) => {
                if !found.is_empty() && changes.send(found).await.is_err() {
                    return Ok(());
                }
                again.unwrap_or(RESCAN).min(RESCAN)
            }
            Err(_) => RETRY,
        };
        look = tokio::select! {
            look = watch.changed() => look,
            () = sleep(wait) => Look::AtAll,
            () = changes.closed() => return Ok(()),
        }
    }
}

fn log_folder(path: &str, scan: &io::Result<Scan>, missing: &mut bool) {
    match scan {
        Err(error) if !*missing => tracing::error!(
            "the folder of manifests {path} cannot be read ({error}): create it or correct --manifests; \
             nothing is deleted meanwhile, and it is tried again every second"
        ),
        Ok(_) if *missing => tracing::info!("the folder of manifests {path} can be read again"),
        _ => {}
    }
    *missing = scan.is_err();
}

/// inotify on one folder, armed again when another folder takes its path.
#[derive(Default)]
struct FolderWatch {
    armed: Option<Armed>,
    failed: bool,
    /// When the folder was looked at last.
    looked: Option<Instant>,
}

struct Armed {
    inode: (u64, u64),
    events: mpsc::Receiver<()>,
    writing: Arc<Mutex<Writing>>,
    _watcher: RecommendedWatcher,
}

impl FolderWatch {
    fn arm(&mut self, directory: &Path) {
        let inode = std::fs::metadata(directory).map(|found| (found.dev(), found.ino()));
        let Ok(inode) = inode else {
            self.armed = None;
            return;
        };
        if self.armed.as_ref().is_some_and(|armed| armed.inode == inode) {
            return;
        }
        match Armed::new(directory, inode) {
            Ok(armed) => {
                self.failed = false;
                self.armed = Some(armed);
            }
            Err(error) => {
                if !self.failed {
                    tracing::warn!(
                        "{} cannot be watched ({error}), so changes are seen within {} s only: \
                         raise fs.inotify.max_user_watches or max_user_instances",
                        directory.display(),
                        RESCAN.as_secs(),
                    );
                }
                self.failed = true;
                self.armed = None;
            }
        }
    }

    /// The files that are not complete now.
    fn writing(&self, now: Duration) -> BTreeSet<OsString> {
        let Some(armed) = &self.armed else {
            return BTreeSet::new();
        };
        let mut writing = armed.writing.lock().unwrap_or_else(PoisonError::into_inner);
        writing.0.retain(|_, last| now.saturating_sub(*last) < PATIENCE);
        writing.0.keys().cloned().collect()
    }

    /// Returns when something changed after silence, or when it is quiet again.
    async fn changed(&mut self) -> Look {
        let Some(armed) = &mut self.armed else {
            return std::future::pending().await;
        };
        if armed.events.recv().await.is_none() {
            return std::future::pending().await;
        }
        if self.looked.is_some_and(|looked| looked.elapsed() >= QUIET) {
            return Look::AtMore;
        }
        let quiet = async { while let Ok(Some(())) = timeout(QUIET, armed.events.recv()).await {} };
        // Out of patience is as good as quiet.
        let _ = timeout(QUIET_AT_MOST, quiet).await;
        Look::AtAll
    }
}

impl Armed {
    fn new(directory: &Path, inode: (u64, u64)) -> notify::Result<Self> {
        // One waiting signal says as much as many.
        let (signal, events) = mpsc::channel(1);
        let writing = Arc::<Mutex<Writing>>::default();
        let shared = Arc::clone(&writing);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let mut writing = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if event.map_or(true, |event| writing.learn(&event, clock::monotonic())) {
                let _ = signal.try_send(());
            }
        })?;
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        Ok(Self {
            inode,
            events,
            writing,
            _watcher: watcher,
        })
    }
}

/// The files that somebody writes into now, and when they did last.
#[derive(Default)]
struct Writing(BTreeMap<OsString, Duration>);

impl Writing {
    /// Takes in what happened; whether that is a reason to look at the folder.
    fn learn(&mut self, event: &Event, now: Duration) -> bool {
        let names = event.paths.iter().filter_map(|path| path.file_name());
        match event.kind {
            EventKind::Modify(ModifyKind::Data(_)) => {
                self.0.extend(names.map(|name| (name.to_owned(), now)));
                false
            }
            EventKind::Create(_) if event.paths.iter().all(|path| is_new_file(path)) => {
                self.0.extend(names.map(|name| (name.to_owned(), now)));
                false
            }
            // The file is complete, or is another one, or none.
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Remove(_)
            | EventKind::Modify(ModifyKind::Name(_)) => {
                for name in names {
                    self.0.remove(name);
                }
                true
            }
            // Our own reading must not wake us.
            EventKind::Access(_) => false,
            EventKind::Create(_) | EventKind::Modify(ModifyKind::Metadata(_)) => true,
            // inotify lost events: nothing is known of anybody who writes.
            _ => {
                self.0.clear();
                true
            }
        }
    }
}

/// Whether this is a file that somebody has just made and will close. A link is complete when it is there.
fn is_new_file(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.nlink() == 1)
}
