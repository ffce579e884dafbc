//! `AFFINITY` and `AFFINITY_BACKENDS`, and the choice that they belong to.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};
use core::mem::offset_of;
use core::ptr;

use aya_ebpf::bindings::BPF_NOEXIST;
use proxy_common::{Affinity, AffinityKey, Backend};
use proxy_datapath::select::{self, Pick};

use crate::maps;
use crate::tables::{EEXIST, Kernel};

/// The word that begins a row of `AFFINITY`.
const WORD: usize = offset_of!(Affinity, backend_id);
const _: () = assert!(WORD == 0 && offset_of!(Affinity, last_seen) == 4);

/// Picks a backend.
///
/// verifier: inlined, each way through here would leave other registers and another stack behind, and each of these would be
/// a case of its own for all that follows (100,000 more instructions). Its argument has a type that BTF can say: an `Option`
/// in one, as [`Kernel`] has it, is refused ("Invalid member `bits_offset`").
#[inline(never)]
pub(crate) fn pick(pick: &mut Pick) -> bool {
    let kernel = Kernel {
        ctx: ptr::null_mut(),
        entry: None,
    };
    select::pick(&kernel, pick)
}

/// Copies a client's row.
#[inline(always)]
pub(crate) fn read(key: &AffinityKey, row: &mut Affinity) -> bool {
    let Some(there) = maps::AFFINITY.get_ptr(key) else {
        return false;
    };
    // SAFETY: copied at once; a row that is evicted meanwhile may be another client's, as any reader of an LRU map has to
    // live with.
    unsafe { ptr::copy_nonoverlapping(there, row, 1) };
    true
}

/// Writes a client's row, if it still is as it was seen; else reads what stands there.
#[inline(always)]
#[expect(
    clippy::cast_ptr_alignment,
    reason = "the kernel aligns the rows of a hash map to 8"
)]
pub(crate) fn stick(key: &AffinityKey, seen: Option<&Affinity>, row: &mut Affinity) -> bool {
    let there = seen.and_then(|seen| Some((seen, maps::AFFINITY.get_ptr_mut(key)?)));
    // None was there, or it was evicted since.
    let Some((seen, there)) = there else {
        return match maps::AFFINITY.insert(key, &*row, u64::from(BPF_NOEXIST)) {
            Err(EEXIST) => !read(key, row),
            _ => true,
        };
    };
    // SAFETY: the pointer is to a live row that begins with this word, see `WORD`; an exchange may race with anything. A row
    // that was evicted meanwhile and is another client's now has the same word only if that one also stuck to `seen`'s
    // backend of the same service port, since the same second: it moves along, which does no harm.
    unsafe {
        let (found, done) = atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
            there.cast::<u64>(),
            word(seen),
            word(row),
        );
        if done {
            ptr::write_volatile(&raw mut (*there).backend_generation, row.backend_generation);
        } else {
            row.backend_id = found as u32;
            row.last_seen = (found >> 32) as u32;
            row.backend_generation = ptr::read_volatile(&raw const (*there).backend_generation);
        }
        done
    }
}

/// Copies a backend, and says whether it is in the set.
#[inline(always)]
pub(crate) fn backend(id: u32, set: u32, backend: &mut Backend) -> bool {
    let Some(row) = maps::AFFINITY_BACKENDS.get_ptr(&id) else {
        return false;
    };
    // SAFETY: a row is replaced as a whole and freed after a grace period, which this run of a program is in.
    unsafe {
        let (cluster, local) = (u32::from((*row).in_cluster), u32::from((*row).in_local));
        ptr::copy_nonoverlapping(&raw const (*row).backend, backend, 1);
        // Without a branch: the verifier follows each to the end.
        (cluster & !set | local & set) != 0
    }
}

/// What of a row of `AFFINITY` changes as a whole: in memory the backend's id, then the time (BPF is little-endian here).
#[inline(always)]
const fn word(row: &Affinity) -> u64 {
    row.backend_id as u64 | (row.last_seen as u64) << 32
}
