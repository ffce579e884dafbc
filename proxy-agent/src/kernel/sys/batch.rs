//! Rows: many in one call, and one in one step.

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

/// `struct { … }` of `union bpf_attr` for the commands on one row.
#[repr(C)]
struct RowArguments {
    map: RawFd,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Reads and deletes a row of a hash map in one step by `BPF_MAP_LOOKUP_AND_DELETE_ELEM` (Linux 5.14).
pub(in crate::kernel) fn take<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = MaybeUninit::<V>::uninit();
    let mut arguments = RowArguments {
        map: map.as_raw_fd(),
        reserved: 0,
        key: std::ptr::from_ref(key) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    match bpf(Command::TakeRow, &mut arguments) {
        // SAFETY: the kernel has filled the whole value, and `Pod` says that every bit pattern is a valid one.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
