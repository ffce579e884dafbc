//! The packet hooks. A program is attached by what its interface is, so that no packet pays for finding out.

use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use proxy_datapath::{Place, path};

use crate::glue::Skb;
use crate::tables::{Entry, Kernel, has_flows};
use crate::{apply, count, maps};

/// How packets are written; why so is told at [`Skb`].
const BY_HELPER: bool = false;
const BY_POINTER: bool = true;

/// From a pod.
#[classifier]
fn pod_ingress(ctx: TcContext) -> i32 {
    ingress(&ctx, From::Pod, true)
}

/// From what is on this node as pods are, and is none (`--detect-local-mode`).
#[classifier]
fn guest_ingress(ctx: TcContext) -> i32 {
    ingress(&ctx, From::Guest, true)
}

/// From outside, or from another node.
#[classifier]
fn uplink_ingress(ctx: TcContext) -> i32 {
    ingress(&ctx, From::Uplink, true)
}

/// From outside, by a device without link headers (`WireGuard`, IP in IP).
#[classifier]
fn uplink_l3_ingress(ctx: TcContext) -> i32 {
    ingress(&ctx, From::Uplink, false)
}

/// To a pod: answers are translated back. What leaves here has mostly been forwarded.
#[classifier]
fn pod_egress(ctx: TcContext) -> i32 {
    answer::<BY_POINTER>(&ctx, true)
}

/// To outside, or to another node; also what the host's own sockets send.
#[classifier]
fn uplink_egress(ctx: TcContext) -> i32 {
    answer::<BY_HELPER>(&ctx, true)
}

/// To outside, by a device without link headers.
#[classifier]
fn uplink_l3_egress(ctx: TcContext) -> i32 {
    answer::<BY_HELPER>(&ctx, false)
}

/// What is behind an interface.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Pod,
    Guest,
    Uplink,
}

#[inline(always)]
fn ingress(ctx: &TcContext, from: From, ethernet: bool) -> i32 {
    let uplink = from == From::Uplink;
    // SAFETY: a field of the program's own context.
    let interface = unsafe { ptr::read_volatile(&raw const (*ctx.as_ptr().cast::<__sk_buff>()).ifindex) };
    let tables = Kernel {
        ctx: ctx.as_ptr(),
        entry: Some(Entry { interface, uplink }),
    };
    if path::is_foreign(&Skb::<BY_HELPER> { ctx }, &tables, ethernet) {
        return TC_ACT_UNSPEC;
    }
    let Some(scratch) = maps::SCRATCH.get_ptr_mut(0) else {
        return TC_ACT_UNSPEC;
    };
    // SAFETY: this CPU's row; TC hooks run with softirqs off, so nothing else uses it meanwhile.
    let s = unsafe { &mut *scratch };
    let place = place(ctx, from, ethernet);
    let mut packet = Skb::<BY_HELPER>::new(ctx, ethernet);
    let decided = path::ingress(&packet, &tables, place, s);
    let (done, action) = apply::verdict(decided, &mut packet, place, s);
    count::verdict(ctx, done, place, s);
    action
}

#[inline(always)]
fn answer<const DIRECT: bool>(ctx: &TcContext, ethernet: bool) -> i32 {
    // Before anything is read of the packet: most interfaces have no flow of the packet path.
    if !has_flows(place(ctx, From::Pod, ethernet).interface) {
        return TC_ACT_UNSPEC;
    }
    let Some(scratch) = maps::SCRATCH.get_ptr_mut(0) else {
        return TC_ACT_UNSPEC;
    };
    // SAFETY: as in `ingress`.
    let s = unsafe { &mut *scratch };
    // verifier: read again, and not kept over the look-ups above, which costs stack.
    let place = place(ctx, From::Pod, ethernet);
    let mut packet = Skb::<DIRECT>::new(ctx, ethernet);
    let tables = Kernel {
        ctx: ctx.as_ptr(),
        entry: None,
    };
    let decided = path::egress(&packet, &tables, place, s);
    let (done, action) = apply::verdict(decided, &mut packet, place, s);
    count::verdict(ctx, done, place, s);
    action
}

#[inline(always)]
fn place(ctx: &TcContext, from: From, ethernet: bool) -> Place {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    Place {
        // SAFETY: a field of the program's own context.
        interface: unsafe { ptr::read_volatile(&raw const (*skb).ifindex) },
        uplink: from == From::Uplink,
        guest: from == From::Guest,
        ethernet,
    }
}
