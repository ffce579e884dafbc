//! Many rows in one call.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use aya::Pod;

use super::{Command, bpf};

/// `struct { … } batch` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct BatchArguments {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: RawFd,
    element_flags: u64,
    flags: u64,
}

/// A walk over a map in chunks by `BPF_MAP_LOOKUP_BATCH` (Linux 5.6).
///
/// For hash maps the kernel returns whole buckets, so rows that others add or delete meanwhile can be seen or not,
/// but no row that stays is skipped or seen twice.
pub(in crate::kernel) struct Batches<K, V> {
    /// Opaque to us: an array's or a plain walk's last key, a hash map's bucket. Never larger than key or u32.
    position: Vec<u8>,
    started: bool,
    finished: bool,
    keys: Vec<MaybeUninit<K>>,
    values: Vec<MaybeUninit<V>>,
}

impl<K: Pod, V: Pod> Batches<K, V> {
    /// A walk from the beginning, with room for `capacity` rows a chunk.
    pub(in crate::kernel) fn new(capacity: usize) -> Self {
        Self {
            position: vec![0; size_of::<K>().max(size_of::<u32>())],
            started: false,
            finished: false,
            keys: vec![MaybeUninit::uninit(); capacity],
            values: vec![MaybeUninit::uninit(); capacity],
        }
    }

    /// A walk over the rows behind `key` of an array, whose position is its last key.
    pub(in crate::kernel) fn after(key: u32, capacity: usize) -> Self {
        let mut batches = Self::new(capacity);
        batches.position = key.to_ne_bytes().to_vec();
        batches.started = true;
        batches
    }

    /// The next rows; empty at the end of the map.
    pub(in crate::kernel) fn next(&mut self, map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>> {
        while !self.finished {
            let mut next = vec![0_u8; self.position.len()];
            let mut arguments = BatchArguments {
                in_batch: if self.started {
                    self.position.as_ptr() as u64
                } else {
                    0
                },
                out_batch: next.as_mut_ptr() as u64,
                keys: self.keys.as_mut_ptr() as u64,
                values: self.values.as_mut_ptr() as u64,
                count: u32::try_from(self.keys.len()).unwrap_or(u32::MAX),
                map: map.as_raw_fd(),
                ..BatchArguments::default()
            };
            match bpf(Command::LookupBatch, &mut arguments) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.finished = true,
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    // One bucket of a hash map is larger than the buffer: nothing was read, so grow and ask again.
                    let larger = self.keys.len().saturating_mul(2).max(64);
                    self.keys.resize(larger, MaybeUninit::uninit());
                    self.values.resize(larger, MaybeUninit::uninit());
                    continue;
                }
                Err(error) => return Err(error),
            }
            self.position = next;
            self.started = true;
            let count = usize::try_from(arguments.count).unwrap_or(0);
            if count > 0 {
                return Ok(self.take(count));
            }
        }
        Ok(Vec::new())
    }

    fn take(&self, count: usize) -> Vec<(K, V)> {
        self.keys
            .iter()
            .zip(&self.values)
            .take(count)
            // SAFETY: the kernel reported `count` rows and filled that many keys and values from the start of both
            // buffers; `Pod` says that every bit pattern is a valid value.
            .map(|(key, value)| unsafe { (key.assume_init(), value.assume_init()) })
            .collect()
    }
}

/// Deletes rows of a hash map by `BPF_MAP_DELETE_BATCH`; a row that is gone already is not an error.
///
/// Returns how many rows were deleted.
pub(in crate::kernel) fn delete_batch<K: Pod>(map: BorrowedFd<'_>, keys: &[K]) -> io::Result<usize> {
    let mut deleted = 0;
    let mut rest = keys;
    while !rest.is_empty() {
        let mut arguments = BatchArguments {
            keys: rest.as_ptr() as u64,
            count: u32::try_from(rest.len()).unwrap_or(u32::MAX),
            map: map.as_raw_fd(),
            ..BatchArguments::default()
        };
        let result = bpf(Command::DeleteBatch, &mut arguments);
        let done = usize::try_from(arguments.count).unwrap_or(0).min(rest.len());
        deleted += done;
        match result {
            Ok(_) => rest = rest.get(done.max(1)..).unwrap_or_default(),
            // The kernel stops at the first missing key: skip it.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                rest = rest.get(done + 1..).unwrap_or_default();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}
