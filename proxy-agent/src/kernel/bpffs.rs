//! The BPF file system: is it there, may we write, and does another agent use it?

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, FsWord, flock, major, minor, statfs};
use rustix::mount::{MountFlags, mount};

use super::maps::OpenError;
use super::pins::Pins;

/// `BPF_FS_MAGIC` of the uapi.
const BPF_FS_MAGIC: FsWord = 0xcafe_4a11;

/// Why the BPF file system cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BpffsError {
    /// The folder is missing.
    #[error(
        "there is no folder {path}: make it and mount a BPF file system there (`mount -t bpf bpf {path}`), or name one with --bpffs"
    )]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// Another file system is there.
    #[error(
        "{path} is not a BPF file system, and mounting one failed ({reason}): run `mount -t bpf bpf {path}`, or name one with --bpffs"
    )]
    NotBpf {
        /// The folder.
        path: PathBuf,
        /// Why none was mounted.
        reason: String,
    },
    /// Not allowed.
    #[error("may not use {path}: run as root, or with CAP_BPF and CAP_NET_ADMIN")]
    Permission {
        /// The folder or file.
        path: PathBuf,
    },
    /// Somebody else holds the lock.
    #[error(
        "another weir agent uses {path}: {holder}; stop it first, or name another BPF file system with --bpffs"
    )]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Who it is, as far as that can be known.
        holder: String,
    },
    /// The kernel refused.
    #[error("cannot {verb} {path}: {source}")]
    Syscall {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BpffsError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied => BpffsError::Permission { path },
        _ => BpffsError::Syscall { verb, path, source },
    }
}

/// The exclusive right to write below the pins, held until dropped. The kernel gives it back when a process dies.
#[derive(Debug)]
pub(super) struct Lock {
    _folder: File,
}

/// Makes the folders for pins if they are missing, and takes the lock on them.
pub(super) fn prepare(pins: &Pins) -> Result<Lock, BpffsError> {
    check_file_system(pins.bpffs())?;
    loop {
        for folder in [pins.product(), pins.root(), pins.links()] {
            make_private(&folder)?;
        }
        let lock = lock(&pins.root())?;
        // A clean-up may have removed the folder between the two steps: then the lock is on nothing.
        if pins.links().exists() {
            return Ok(lock);
        }
    }
}

/// Takes the lock on the pins: `flock` on the folder itself, because the BPF file system has no ordinary files.
pub(super) fn lock(folder: &Path) -> Result<Lock, BpffsError> {
    let file = File::open(folder).map_err(failed("open", folder))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock { _folder: file }),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(BpffsError::Locked {
            path: folder.to_owned(),
            holder: holder(&file),
        }),
        Err(error) => Err(failed("lock", folder)(error.into())),
    }
}

/// The same; `None` if there is no such folder. Not being allowed to look is an error.
pub(super) fn lock_if_there(folder: &Path) -> Result<Option<Lock>, BpffsError> {
    match fs::metadata(folder) {
        Ok(_) => lock(folder).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("look at", folder)(error)),
    }
}

/// Takes the right to read the ring of events, which has one reader's position: two readers would share the events.
pub(super) fn lock_events(pins: &Pins) -> Result<Lock, OpenError> {
    let folder = pins.monitor();
    make_private(&folder)?;
    lock(&folder).map_err(|error| match error {
        BpffsError::Locked { holder, .. } => OpenError::Monitored { holder },
        other => other.into(),
    })
}

fn check_file_system(path: &Path) -> Result<(), BpffsError> {
    if is_bpf(path)? {
        return Ok(());
    }
    mount_bpf(path).map_err(|reason| BpffsError::NotBpf {
        path: path.to_owned(),
        reason,
    })?;
    tracing::info!(path = %path.display(), "mounted a BPF file system");
    Ok(())
}

/// Whether a BPF file system is mounted there.
pub(super) fn is_bpf(path: &Path) -> Result<bool, BpffsError> {
    match statfs(path) {
        Ok(found) => Ok(found.f_type == BPF_FS_MAGIC),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Err(BpffsError::Missing {
            path: path.to_owned(),
        }),
        Err(error) => Err(failed("look at", path)(error.into())),
    }
}

/// Mounts over an empty folder only: what a user has in it must not vanish.
fn mount_bpf(path: &Path) -> Result<(), String> {
    let mut entries = fs::read_dir(path).map_err(|error| error.to_string())?;
    if entries.next().is_some() {
        return Err("the folder is not empty".to_owned());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("bpf", path, "bpf", flags, c"mode=0700").map_err(|error| io::Error::from(error).to_string())
}

/// Makes a folder that only root may enter, or closes one that others may.
fn make_private(path: &Path) -> Result<(), BpffsError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("make the folder", path)(error)),
    }
    let mode = fs::metadata(path)
        .map_err(failed("look at", path))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(failed("close to others", path))?;
    }
    Ok(())
}

/// The agent that holds the lock on the pins, as far as its process can be seen from here. Looking takes no lock, so an
/// agent that starts meanwhile is not disturbed.
pub fn running_agent(pins: &Pins) -> Option<String> {
    visible_holder(&File::open(pins.root()).ok()?)
}

/// Who holds a lock on this file, as `/proc/locks` tells it.
fn holder(file: &File) -> String {
    visible_holder(file)
        .unwrap_or_else(|| "its process cannot be seen from here, it may be in another container".to_owned())
}

fn visible_holder(file: &File) -> Option<String> {
    let metadata = file.metadata().ok()?;
    let device = metadata.dev();
    let place = format!("{:02x}:{:02x}:{}", major(device), minor(device), metadata.ino());
    let pid = find_holder(&fs::read_to_string("/proc/locks").ok()?, &place)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("pid {pid} {}", name.trim()).trim_end().to_owned())
}

/// The process in the line of `/proc/locks` about this place (`major:minor:inode`).
///
/// `1: FLOCK  ADVISORY  WRITE 4711 00:1f:12345 0 EOF`
fn find_holder(locks: &str, place: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == place)?;
        let pid = words.get(at.checked_sub(1)?)?.parse().ok()?;
        (words.contains(&"FLOCK") && pid != 0).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_the_process_with_the_flock_on_that_inode() {
        let locks = "1: POSIX  ADVISORY  READ 9 00:1f:7 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 4711 00:1f:7 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 4712 00:1f:8 0 EOF\n";
        assert_eq!(find_holder(locks, "00:1f:7"), Some(4711));
        assert_eq!(find_holder(locks, "00:1f:9"), None);
    }

    #[test]
    fn one_at_a_time_reads_events() {
        let folder = std::env::temp_dir().join(format!("weir-monitor-{}", std::process::id()));
        let pins = Pins::new(&folder);
        fs::create_dir_all(pins.root()).unwrap();
        let first = lock_events(&pins).unwrap();
        let refused = lock_events(&pins).unwrap_err();
        assert!(matches!(refused, OpenError::Monitored { .. }), "{refused}");
        drop(first);
        drop(lock_events(&pins).unwrap());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn only_a_folder_that_is_missing_counts_as_none() {
        assert!(lock_if_there(Path::new("/proc/nonexistent")).unwrap().is_none());
        let refused = lock_if_there(Path::new("/proc/version/weir")).unwrap_err();
        assert!(matches!(refused, BpffsError::Syscall { .. }), "{refused}");
        assert!(lock_if_there(&std::env::temp_dir()).unwrap().is_some());
    }

    #[test]
    fn a_folder_with_files_is_not_mounted_over() {
        assert_eq!(
            mount_bpf(Path::new("/")),
            Err("the folder is not empty".to_owned())
        );
    }
}
