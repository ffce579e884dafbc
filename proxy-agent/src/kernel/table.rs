//! One pinned map as a typed table: rows by key, or slots by number.

use std::fmt::Debug;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use aya::Pod;
use aya::maps::{Array, HashMap, IterableMap, MapData};

use super::sys::{self, Batches};

/// Rows that one bpf(2) call reads.
pub(super) const CHUNK: usize = 1024;

/// Why a row could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// No room.
    #[error(
        "map {map} is full: row {row} was not written; remove Services, or use a build of weir with larger maps"
    )]
    Full {
        /// Name of the map.
        map: &'static str,
        /// Key of the row.
        row: String,
    },
    /// No such row.
    #[error("map {map} has no row {row}")]
    Missing {
        /// Name of the map.
        map: &'static str,
        /// Key of the row.
        row: String,
    },
    /// The kernel refused.
    #[error(
        "cannot {verb} row {row} of map {map}: {source}; if the pinned maps are damaged, stop the agent and run `weir cleanup`"
    )]
    Syscall {
        /// Name of the map.
        map: &'static str,
        /// Key of the row.
        row: String,
        /// What was tried.
        verb: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// Sorts an error of aya by its kind.
pub(super) fn map_error(
    map: &'static str,
    verb: &'static str,
    row: &impl Debug,
    error: aya::maps::MapError,
) -> MapError {
    let row = format!("{row:?}");
    let source = match error {
        aya::maps::MapError::KeyNotFound | aya::maps::MapError::ElementNotFound => {
            return MapError::Missing { map, row };
        }
        aya::maps::MapError::OutOfBounds { .. } => return MapError::Full { map, row },
        aya::maps::MapError::SyscallError(error) => error.io_error,
        other => io::Error::other(other),
    };
    syscall_error(map, verb, row, source)
}

fn syscall_error(map: &'static str, verb: &'static str, row: String, source: io::Error) -> MapError {
    match source.raw_os_error() {
        Some(libc::E2BIG) => MapError::Full { map, row },
        Some(libc::ENOENT) => MapError::Missing { map, row },
        _ => MapError::Syscall {
            map,
            row,
            verb,
            source,
        },
    }
}

/// Whether a row was not written because there is one.
fn is_there(error: &aya::maps::MapError) -> bool {
    matches!(error, aya::maps::MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::EEXIST))
}

/// A hash map.
pub(super) struct Rows<K: Pod, V: Pod> {
    name: &'static str,
    map: HashMap<MapData, K, V>,
}

impl<K: Pod + Debug, V: Pod> Rows<K, V> {
    pub(super) fn new(name: &'static str, map: HashMap<MapData, K, V>) -> Self {
        Self { name, map }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.map.map().fd().as_fd()
    }

    pub(super) fn get(&self, key: &K) -> Result<Option<V>, MapError> {
        match self.map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(aya::maps::MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(map_error(self.name, "read", key, error)),
        }
    }

    pub(super) fn put(&mut self, key: &K, value: &V) -> Result<(), MapError> {
        self.map
            .insert(key, value, 0)
            .map_err(|error| map_error(self.name, "write", key, error))
    }

    /// Deletes a row; that there is none is what was asked for.
    pub(super) fn delete(&mut self, key: &K) -> Result<(), MapError> {
        match self
            .map
            .remove(key)
            .map_err(|error| map_error(self.name, "delete", key, error))
        {
            Err(MapError::Missing { .. }) => Ok(()),
            other => other,
        }
    }

    /// Deletes those of these rows that still are `dead` at the moment they go; returns how many.
    ///
    /// The programs write rows at any time. A row that came to life since it was read is put back, unless they wrote it
    /// anew in that instant: so deleting never loses what they wrote.
    pub(super) fn delete_dead(&mut self, keys: &[K], dead: impl Fn(&V) -> bool) -> Result<usize, MapError> {
        /// Only if there is no such row.
        const BPF_NOEXIST: u64 = 1;
        let mut deleted = 0;
        for key in keys {
            let taken = sys::take::<K, V>(self.fd(), key)
                .map_err(|source| syscall_error(self.name, "delete", format!("{key:?}"), source))?;
            match taken {
                Some(row) if dead(&row) => deleted += 1,
                Some(row) => match self.map.insert(key, &row, BPF_NOEXIST) {
                    Err(error) if !is_there(&error) => {
                        return Err(map_error(self.name, "put back", key, error));
                    }
                    _ => {}
                },
                None => {}
            }
        }
        Ok(deleted)
    }

    /// The next chunk of a walk; empty at the end.
    pub(super) fn next(&self, batches: &mut Batches<K, V>) -> Result<Vec<(K, V)>, MapError> {
        batches
            .next(self.fd())
            .map_err(|source| syscall_error(self.name, "read", "(all)".to_owned(), source))
    }

    /// Every row.
    pub(super) fn all(&self) -> Result<Vec<(K, V)>, MapError> {
        let mut batches = Batches::new(CHUNK);
        let mut rows = Vec::new();
        loop {
            let chunk = self.next(&mut batches)?;
            if chunk.is_empty() {
                return Ok(rows);
            }
            rows.extend(chunk);
        }
    }
}

/// An array.
pub(super) struct Slots<V: Pod> {
    name: &'static str,
    map: Array<MapData, V>,
}

impl<V: Pod> Slots<V> {
    pub(super) fn new(name: &'static str, map: Array<MapData, V>) -> Self {
        Self { name, map }
    }

    pub(super) fn get(&self, slot: u32) -> Result<V, MapError> {
        self.map
            .get(&slot, 0)
            .map_err(|error| map_error(self.name, "read", &slot, error))
    }

    pub(super) fn put(&mut self, slot: u32, value: &V) -> Result<(), MapError> {
        self.map
            .set(slot, value, 0)
            .map_err(|error| map_error(self.name, "write", &slot, error))
    }

    /// Slots `first .. first + count`, as many as there are.
    pub(super) fn range(&self, first: u32, count: u32) -> Result<Vec<(u32, V)>, MapError> {
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        let capacity = wanted.clamp(1, CHUNK);
        let mut batches = match first.checked_sub(1) {
            Some(before) => Batches::after(before, capacity),
            None => Batches::new(capacity),
        };
        let mut rows: Vec<(u32, V)> = Vec::new();
        while rows.len() < wanted {
            let chunk = batches.next(self.map.map().fd().as_fd()).map_err(|source| {
                syscall_error(
                    self.name,
                    "read",
                    format!("{first}, and {count} from there"),
                    source,
                )
            })?;
            if chunk.is_empty() {
                break;
            }
            rows.extend(chunk);
        }
        rows.truncate(wanted);
        Ok(rows)
    }

    /// Every slot.
    pub(super) fn all(&self) -> Result<Vec<(u32, V)>, MapError> {
        self.range(0, u32::MAX)
    }
}
