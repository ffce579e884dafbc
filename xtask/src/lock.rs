//! Files that one process at a time holds. The kernel lets go of them when the process ends, however it ends.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use anyhow::{Context, Result};

/// Held as long as this lives.
pub(crate) struct Lock(#[expect(dead_code, reason = "the lock is the open file")] File);

impl Lock {
    /// Takes it; `None` if somebody has it.
    pub(crate) fn take(path: &Path) -> Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// Takes it when it is free, and says that it waits if it is not.
    pub(crate) fn wait(path: &Path, what: &str) -> Result<Self> {
        if let Some(lock) = Self::take(path)? {
            return Ok(lock);
        }
        eprintln!("x: waiting: another ./x {what}, and holds {}", path.display());
        let file = open(path)?;
        file.lock()
            .with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self(file))
    }
}

fn open(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    options
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let path = std::env::temp_dir().join(format!("weir-lock-{}", std::process::id()));
        let first = Lock::take(&path).unwrap();
        assert!(first.is_some());
        assert!(Lock::take(&path).unwrap().is_none());
        drop(first);
        Lock::wait(&path, "tests").unwrap();
        fs::remove_file(&path).unwrap();
    }
}
