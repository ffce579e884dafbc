//! The programs that weir loads into the kernel. Each is a thin hook over `proxy-datapath`, where the story of a
//! packet is told; `maps.rs` lists what they share with the agent.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(
    internal_features,
    reason = "atomic add is an intrinsic on this target: core::sync::atomic has none"
)]
#![expect(unsafe_code, reason = "kernel helpers, map pointers and packet pointers")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "the kernel's helpers and context fields have widths of their own; each value is known to fit"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the macros of the hooks hand the context over by value"
)]

mod affinity;
mod apply;
mod cold;
mod count;
mod fib;
mod glue;
mod hooks;
mod maps;
mod ports;
mod source_ranges;
mod summed;
mod tables;
mod words;

/// Programs that call GPL-only helpers must say that they may.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached: no code of ours can panic, and the verifier rejects a program that could get here.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
