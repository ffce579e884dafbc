//! Removes every trace of weir from the node.
//!
//! First the links, so that no program runs without its maps; then the filters of kernels without TCX, the maps, and
//! the folders. What other programs own is not touched, and neither is the BPF file system itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use futures::TryStreamExt;

use super::attach::Side;
use super::bpffs::{self, BpffsError};
use super::clsact;
use super::load::netns_cookie;
use super::maps::meta;
use super::pins::Pins;

/// Why something stayed behind.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// Not where weir has its pins.
    #[error(
        "{path} is no BPF file system, so nothing of weir is found there: name the one that the agent was given, with --bpffs"
    )]
    NotBpf {
        /// What was looked at.
        path: PathBuf,
    },
    /// Not even a folder.
    #[error("there is no folder {path}: name the BPF file system that the agent was given, with --bpffs")]
    Missing {
        /// What was looked at.
        path: PathBuf,
    },
    /// An agent is running, or we may not look.
    #[error(transparent)]
    Bpffs(#[from] BpffsError),
    /// The kernel refused.
    #[error("cannot remove {path}: {source}; run as root")]
    Remove {
        /// What stays.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The interfaces cannot be listed.
    #[error("cannot list the interfaces to remove filters from: {0}; run as root")]
    Interfaces(String),
}

/// Detaches the programs, unpins links and maps, removes the folders; returns what was removed, one line each, and what to do about what
/// was not.
///
/// Finding nothing in a BPF file system is success; not being able to look is not. Filters are removed from the interfaces of the network namespace that this runs in, if
/// the maps are this namespace's: the filters here may be those of another node on this machine, which has its pins
/// elsewhere.
pub async fn cleanup(pins: &Pins) -> Result<Vec<String>, CleanupError> {
    let mut removed = Vec::new();
    let root = pins.root();
    check_file_system(pins.bpffs())?;
    let Some(_lock) = bpffs::lock_if_there(&root)? else {
        return Ok(removed);
    };
    remove_files(&pins.links(), &mut removed)?;
    if is_of_this_namespace(pins) {
        remove_filters(&mut removed).await?;
    } else {
        removed.push(
            "(the maps are of another network namespace: if its kernel is older than 6.6, delete that namespace, or the \
             clsact qdiscs in it)"
                .to_owned(),
        );
    }
    remove_files(&root, &mut removed)?;
    remove_folder(&pins.links(), &mut removed)?;
    remove_folder(&pins.monitor(), &mut removed)?;
    remove_folder(&root, &mut removed)?;
    // Another version may have its maps beside ours.
    if fs::read_dir(pins.product()).is_ok_and(|mut entries| entries.next().is_none()) {
        remove_folder(&pins.product(), &mut removed)?;
    }
    Ok(removed)
}

fn check_file_system(path: &Path) -> Result<(), CleanupError> {
    match bpffs::is_bpf(path) {
        Ok(true) => Ok(()),
        Ok(false) => Err(CleanupError::NotBpf {
            path: path.to_owned(),
        }),
        Err(BpffsError::Missing { path }) => Err(CleanupError::Missing { path }),
        Err(other) => Err(other.into()),
    }
}

/// Whether the maps say that they were made in this network namespace.
fn is_of_this_namespace(pins: &Pins) -> bool {
    let Ok(meta) = meta(pins) else {
        return false;
    };
    netns_cookie().is_ok_and(|here| here == meta.netns_cookie)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> CleanupError {
    let path = path.to_owned();
    move |source| CleanupError::Remove { path, source }
}

/// Removes the files of a folder, not its folders.
fn remove_files(folder: &Path, removed: &mut Vec<String>) -> Result<(), CleanupError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed(folder))?,
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| !path.is_dir())
        .collect();
    files.sort();
    for file in files {
        fs::remove_file(&file).map_err(failed(&file))?;
        removed.push(file.display().to_string());
    }
    Ok(())
}

fn remove_folder(folder: &Path, removed: &mut Vec<String>) -> Result<(), CleanupError> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(folder)(error)),
        Ok(()) => {
            removed.push(folder.display().to_string());
            Ok(())
        }
    }
}

/// Removes our filters from every interface of this network namespace.
async fn remove_filters(removed: &mut Vec<String>) -> Result<(), CleanupError> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|error| CleanupError::Interfaces(error.to_string()))?;
    let connection = tokio::spawn(connection);
    let mut links = handle.link().get().execute();
    while let Some(link) = links
        .try_next()
        .await
        .map_err(|error| CleanupError::Interfaces(error.to_string()))?
    {
        let index = link.header.index;
        for side in Side::BOTH {
            if clsact::detach(index, side) {
                removed.push(format!("filter on the {side} of interface {index}"));
            }
        }
    }
    connection.abort();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refusal(path: &str) -> CleanupError {
        cleanup(&Pins::new(path)).await.unwrap_err()
    }

    #[tokio::test]
    async fn what_cannot_hold_pins_is_not_taken_for_a_clean_node() {
        let refused = refusal("/proc").await;
        assert!(matches!(refused, CleanupError::NotBpf { .. }), "{refused}");
        for missing in ["/nonexistent/bpf", "/proc/version/bpf"] {
            let refused = refusal(missing).await;
            assert!(matches!(refused, CleanupError::Missing { .. }), "{refused}");
        }
    }
}
