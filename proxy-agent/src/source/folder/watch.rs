//! When to look at the folder: at once when it changes, and every 30 s anyway.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::super::{Changes, SourceError};
use super::{Scan, Scanner};

/// An editor or `kubectl cp` writes a file in several steps; this much silence means that it is done.
const QUIET: Duration = Duration::from_millis(20);
/// A file that is written all the time is read at least this often.
const QUIET_AT_MOST: Duration = Duration::from_millis(200);
/// Catches what inotify does not see: files that are links to elsewhere, and some network file systems.
const RESCAN: Duration = Duration::from_secs(30);
/// How often a missing folder is looked for.
const RETRY: Duration = Duration::from_secs(1);

/// Scans until the receiver is gone.
pub(super) async fn run(mut scanner: Scanner, changes: mpsc::Sender<Changes>) -> Result<(), SourceError> {
    let mut watch = FolderWatch::default();
    let mut missing = false;
    loop {
        // Armed before the scan, so that no change falls between the two.
        watch.arm(&scanner.directory);
        let path = scanner.directory.display().to_string();
        let (back, scan) = tokio::task::spawn_blocking(move || {
            let scan = scanner.scan();
            (scanner, scan)
        })
        .await
        .map_err(|_| SourceError::Ended(path.clone()))?;
        scanner = back;
        log_folder(&path, &scan, &mut missing);
        let wait = match scan {
            Ok(Scan { changes: found, torn }) => {
                if !found.is_empty() && changes.send(found).await.is_err() {
                    return Ok(());
                }
                if torn { QUIET } else { RESCAN }
            }
            Err(_) => RETRY,
        };
        tokio::select! {
            () = watch.changed() => {}
            () = sleep(wait) => {}
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
}

struct Armed {
    inode: (u64, u64),
    events: mpsc::Receiver<()>,
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
        match watcher(directory) {
            Ok((events, watcher)) => {
                self.failed = false;
                self.armed = Some(Armed {
                    inode,
                    events,
                    _watcher: watcher,
                });
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

    /// Returns when something changed and it is quiet again.
    async fn changed(&mut self) {
        let Some(armed) = &mut self.armed else {
            return std::future::pending().await;
        };
        if armed.events.recv().await.is_none() {
            return std::future::pending().await;
        }
        let quiet = async { while let Ok(Some(())) = timeout(QUIET, armed.events.recv()).await {} };
        // Out of patience is as good as quiet.
        let _ = timeout(QUIET_AT_MOST, quiet).await;
    }
}

fn watcher(directory: &Path) -> notify::Result<(mpsc::Receiver<()>, RecommendedWatcher)> {
    // One waiting signal says as much as many.
    let (signal, events) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.map_or(true, |event| is_change(event.kind)) {
            let _ = signal.try_send(());
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok((events, watcher))
}

/// Our own reading must not wake us.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}
