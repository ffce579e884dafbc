//! `skb->ip_summed`: whether the transport checksum is the device's business. `__sk_buff` does not show it.

use core::arch::asm;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::programs::TcContext;
use proxy_common::object::{IP_SUMMED_MARK, IP_SUMMED_SHIFT};

/// Beside the byte: it was read.
const READ: u64 = 1 << 8;

/// What it says; `None` if the kernel does not tell.
///
/// The agent replaces two of these instructions when it loads the object ([`proxy_common::object`]): the first zero by a call
/// of `bpf_cast_to_kern_ctx`, which is but a copy of the register, and the offset of the load. As they stand the verifier
/// leaves the rest out.
#[inline(always)]
pub(crate) fn ip_summed(ctx: &TcContext) -> Option<u32> {
    let answer: u64;
    // SAFETY: the call takes the program's context and leaves registers 6 to 9 alone; the load is from the kernel's own
    // structure, which the verifier checks.
    unsafe {
        asm!(
            "r5 = {mark}",
            "r0 = 0",
            "if r0 == 0 goto +2",
            "r0 = *(u8 *)(r0 + 0)",
            "r0 |= {read}",
            mark = const IP_SUMMED_MARK,
            read = const READ,
            inlateout("r1") ctx.as_ptr() => _,
            lateout("r0") answer,
            lateout("r2") _,
            lateout("r3") _,
            lateout("r4") _,
            lateout("r5") _,
            options(readonly, nostack),
        );
    }
    if answer == 0 {
        return None;
    }
    Some((answer >> IP_SUMMED_SHIFT) as u32 & 3)
}
