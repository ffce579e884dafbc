//! Maps with a bit for each port.

use core::intrinsics::{AtomicOrdering, atomic_or};

use aya_ebpf::btf_maps::Array;
use proxy_common::{PortBit, PortWord, limits};

/// A bit for each port.
pub(crate) type Ports = Array<PortWord, { limits::PORT_WORDS }>;

/// Whether a port's bit is set.
#[inline(always)]
pub(crate) fn is_set(ports: &Ports, port: u16) -> bool {
    let bit = PortBit::of(port);
    ports.get(bit.word).is_some_and(|word| word.bits & bit.mask != 0)
}

/// Sets a port's bit. Almost always it is set already, and a word that nobody writes stays in every CPU's cache.
#[inline(always)]
pub(crate) fn set(ports: &Ports, port: u16) {
    let bit = PortBit::of(port);
    if !is_set(ports, port)
        && let Some(word) = ports.get_ptr_mut(bit.word)
    {
        // SAFETY: the pointer is to a live array row, and an atomic or may race with anything.
        unsafe { atomic_or::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*word).bits, bit.mask) };
    }
}
