//! Addresses as the kernel's structs have them.

use core::mem;

use proxy_common::Ip;

/// An address as four words, in network order.
#[inline(always)]
pub(crate) fn words(ip: &Ip) -> [u32; 4] {
    // SAFETY: sixteen bytes either way, and every bit pattern is valid in both.
    unsafe { mem::transmute::<[u8; 16], [u32; 4]>(ip.bytes) }
}

/// The way back.
#[inline(always)]
pub(crate) fn bytes(words: [u32; 4]) -> Ip {
    // SAFETY: as in `words`.
    Ip::v6(unsafe { mem::transmute::<[u32; 4], [u8; 16]>(words) })
}
