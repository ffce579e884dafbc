//! A verdict becomes helper calls: the only place where packets are changed and sent.

use core::hint::cold_path;
use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_F_RECOMPUTE_CSUM, TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_redir_neigh as Neighbour,
    bpf_redir_neigh__bindgen_ty_1 as NextHop,
};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_neigh, bpf_skb_store_bytes};
use aya_ebpf::programs::TcContext;
use proxy_common::Reason;
use proxy_datapath::reply::MAX;
use proxy_datapath::{Packet as _, PacketMut as _, Place, Scratch, Verdict, rewrite};

use crate::glue::Skb;
use crate::words::words;

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// Does what the verdict says; the verdict that comes back is the one to count, and the number the kernel's.
///
/// A packet that goes on gets `TC_ACT_UNSPEC` (`TCX_NEXT`): programs of others behind this one have their say.
#[inline(always)]
pub(crate) fn verdict<const DIRECT: bool>(
    verdict: Verdict,
    packet: &mut Skb<'_, DIRECT>,
    place: Place,
    s: &mut Scratch,
) -> (Verdict, i32) {
    let done = match verdict {
        Verdict::Ignore | Verdict::Pass(_) => Some(TC_ACT_UNSPEC),
        Verdict::Drop(_) => Some(TC_ACT_SHOT),
        // One call for both: it is the longest part of a program.
        Verdict::Translate(_) | Verdict::Redirect(_) => match rewrite::apply(packet, s) {
            Some(()) if matches!(verdict, Verdict::Redirect(_)) => {
                cold_path();
                Some(redirect(s))
            }
            Some(()) => Some(TC_ACT_UNSPEC),
            None => None,
        },
        Verdict::Reply(_) => {
            cold_path();
            reply(packet, place, s)
        }
    };
    match done {
        Some(action) => (verdict, action),
        None => (Verdict::Drop(Reason::DropRewrite), TC_ACT_SHOT),
    }
}

/// Out by the route, with the link address of the next hop as the kernel finds it.
#[inline(always)]
fn redirect(s: &Scratch) -> i32 {
    let v4 = s.route.next_hop.is_v4();
    let mut neighbour = Neighbour {
        nh_family: if v4 { AF_INET } else { AF_INET6 },
        __bindgen_anon_1: if v4 {
            NextHop {
                ipv6_nh: [u32::from_ne_bytes(s.route.next_hop.v4_bytes()), 0, 0, 0],
            }
        } else {
            NextHop {
                ipv6_nh: words(&s.route.next_hop),
            }
        },
    };
    // SAFETY: the struct is on the stack and as large as is said.
    let action = unsafe {
        bpf_redirect_neigh(
            s.route.interface,
            &raw mut neighbour,
            size_of::<Neighbour>() as i32,
            0,
        )
    };
    action as i32
}

/// Turns the packet into the reply and sends it back.
#[inline(always)]
fn reply<const DIRECT: bool>(packet: &mut Skb<'_, DIRECT>, place: Place, s: &mut Scratch) -> Option<i32> {
    let l3 = u32::from(s.packet.l3) & 0x3f;
    // verifier: a length out of a map is unknown; it must be within the reply's bytes ("invalid access to map value").
    let length = s.reply.length;
    if length == 0 || length > MAX as u32 {
        return None;
    }
    let addresses = if place.ethernet {
        Some(packet.load::<12>(0)?)
    } else {
        None
    };
    packet.ctx.skb.change_tail(l3 + length, 0).ok()?;
    store(packet.ctx, l3, s.reply.bytes.as_ptr(), length)?;
    if let Some([to @ .., f0, f1, f2, f3, f4, f5]) = addresses {
        let [t0, t1, t2, t3, t4, t5] = to;
        let swapped = [f0, f1, f2, f3, f4, f5, t0, t1, t2, t3, t4, t5];
        store(packet.ctx, 0, swapped.as_ptr(), 12)?;
    }
    if s.reply.checksum_at != 0 {
        let at = (l3 + (s.reply.checksum_at & 0x7f)) as usize;
        let diff = s.reply.checksum_diff;
        packet.ctx.l4_csum_replace(at, 0, u64::from(diff), 0).ok()?;
        // The helper believes that the payload has changed by as much as the checksum, the other way.
        packet.fix_device_sum(!diff);
    }
    // SAFETY: numbers only.
    let action = unsafe { bpf_redirect(place.interface, 0) };
    (action == i64::from(TC_ACT_REDIRECT)).then_some(TC_ACT_REDIRECT)
}

/// Copies bytes into the packet, and keeps a checksum that the device has made of it right.
#[inline(always)]
fn store(ctx: &TcContext, at: u32, from: *const u8, length: u32) -> Option<()> {
    // SAFETY: `from` points to at least `length` bytes, which the verifier checks again.
    let result = unsafe {
        bpf_skb_store_bytes(
            ctx.as_ptr().cast(),
            at,
            ptr::from_ref(&*from).cast(),
            length,
            u64::from(BPF_F_RECOMPUTE_CSUM),
        )
    };
    (result == 0).then_some(())
}
