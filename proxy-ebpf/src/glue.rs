//! A socket buffer as the datapath sees a packet: the only place where packet pointers are compared and followed.

use core::hint::cold_path;
use core::mem::offset_of;
use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, BPF_F_IPV6, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::generated::{bpf_csum_update, bpf_skb_store_bytes};
use aya_ebpf::programs::TcContext;
use network_types::eth::{EthHdr, EtherType};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;
use proxy_datapath::packet::{BY_FRAGMENTS, ChecksumFix, Covers};
use proxy_datapath::parse::{SCTP, TCP, UDP};
use proxy_datapath::sctp::Sums;
use proxy_datapath::{Packet, PacketMut, sctp};

use crate::{cold, maps, summed};

/// Offset of the `EtherType`, and the two that it is compared with.
const KIND: usize = offset_of!(EthHdr, ether_type);
const IPV4: [u8; 2] = (EtherType::Ipv4 as u16).to_ne_bytes();
const IPV6: [u8; 2] = (EtherType::Ipv6 as u16).to_ne_bytes();

/// No header that is followed starts beyond this.
///
/// verifier: an offset that comes out of a map is an unknown number; the mask is what makes "packet pointer + offset"
/// a pointer again ("math between pkt pointer and register with unbounded min value").
const OFFSET_MASK: usize = 0x3ff;

/// Bytes that must be in the linear part of a packet that is not plain: the longest headers that are parsed, an ICMPv6
/// error's quote included.
const LINEAR: u32 = 128;

/// Bytes of an SCTP chunk's head.
const CHUNK: usize = 4;

/// A packet at a TC hook, which is written by pointer if `DIRECT`, else by helper.
///
/// A program with a single store by pointer makes every packet private before its first instruction, also those that it
/// leaves alone: a copy of the head of everything that a local socket sends, as the socket keeps a clone. At ingress
/// and at uplinks packets are of that kind and most are none of weir's, so a helper call for the few is cheaper. On their
/// way to a pod they are private by then (the stack has changed their TTL), and a store by pointer costs nothing.
pub(crate) struct Skb<'a, const DIRECT: bool> {
    pub(crate) ctx: &'a TcContext,
}

impl<'a, const DIRECT: bool> Skb<'a, DIRECT> {
    /// Takes a packet, with its headers where they can be read directly.
    #[inline(always)]
    pub(crate) fn new(ctx: &'a TcContext, ethernet: bool) -> Self {
        let packet = Self { ctx };
        let linear = ctx.data_end().wrapping_sub(ctx.data());
        if linear < LINEAR as usize && linear < ctx.len() as usize && !packet.is_plain(ethernet) {
            cold_path();
            // Each of its segments is a packet of its own in a list, and must stay whole: the kernel, when it cuts the packet
            // up, takes their lengths from there (`skb_segment`).
            if packet.segment() == BY_FRAGMENTS {
                return packet;
            }
            // A packet that cannot be pulled has fewer bytes for `load`, which then says so.
            let _pulled = ctx.pull_data(ctx.len().min(LINEAR));
        }
        packet
    }

    /// Whether this is TCP, UDP or SCTP with nothing unusual before it, and its headers can be read directly.
    ///
    /// A segment that a local socket sends has its headers in the linear part and its payload elsewhere. To pull some
    /// of the payload in would copy the head of every one of them, as the socket keeps a clone.
    #[inline(always)]
    fn is_plain(&self, ethernet: bool) -> bool {
        let l3 = if ethernet { EthHdr::LEN } else { 0 };
        let Some([version, _]) = self.load::<2>(l3) else {
            return false;
        };
        let (protocol, l4) = match version {
            // IPv4 without options; the link header must agree.
            0x45 if !ethernet || self.load::<2>(KIND) == Some(IPV4) => {
                let Some([_, protocol]) = self.load::<2>(l3 + offset_of!(Ipv4Hdr, proto) - 1) else {
                    return false;
                };
                (protocol, l3 + Ipv4Hdr::LEN)
            }
            0x60..=0x6f if !ethernet || self.load::<2>(KIND) == Some(IPV6) => {
                let Some([protocol, _]) = self.load::<2>(l3 + offset_of!(Ipv6Hdr, next_hdr)) else {
                    return false;
                };
                (protocol, l3 + Ipv6Hdr::LEN)
            }
            _ => return false,
        };
        match protocol {
            TCP => self.at(l4, TcpHdr::LEN).is_some(),
            UDP => self.at(l4, UdpHdr::LEN).is_some(),
            // With the chunk behind the header, which a device may have put elsewhere.
            SCTP => self.at(l4, sctp::HEADER + CHUNK).is_some(),
            _ => false,
        }
    }

    /// A pointer to `size` bytes at an offset, if the packet has them.
    #[inline(always)]
    fn at(&self, at: usize, size: usize) -> Option<usize> {
        let start = self.ctx.data() + (at & OFFSET_MASK);
        if start + size > self.ctx.data_end() {
            None
        } else {
            Some(start)
        }
    }
}

/// Bytes that are read as 32-bit words.
#[repr(C, align(4))]
struct Words<const N: usize>([u8; N]);

/// Bytes that are read as 16-bit words.
#[repr(C, align(2))]
struct Halves<const N: usize>([u8; N]);

/// An IPv6 address that is written as a number: by words, where sixteen bytes would be a call of `memcpy`.
#[repr(C, packed(4))]
struct Number(u128);

impl<const DIRECT: bool> Packet for Skb<'_, DIRECT> {
    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        // verifier: "start + 1 > end" becomes "start >= end", which proves nothing to it ("offset is outside of the
        // packet"). Nothing is lost: every header has two bytes.
        const { assert!(N >= 2, "load two bytes and leave one") };
        let start = self.at(at, N)?;
        // SAFETY: `at` has compared the end of these N bytes with the end of the packet; the verifier checks it
        // again. This machine reads words at any address, and without the claim of alignment the compiler would read
        // byte by byte. The sizes of the aligned types are N in their branches.
        Some(unsafe {
            match N % 4 {
                0 => ptr::read(start as *const Words<N>).0,
                2 => ptr::read(start as *const Halves<N>).0,
                _ => ptr::read(start as *const [u8; N]),
            }
        })
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        let skb: *mut __sk_buff = self.ctx.as_ptr().cast();
        // SAFETY: a field of the program's own context.
        unsafe { ptr::read_volatile(&raw const (*skb).gso_size) }
    }
}

impl<const DIRECT: bool> PacketMut for Skb<'_, DIRECT> {
    #[inline(always)]
    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        if !DIRECT {
            // SAFETY: the bytes are on the stack, and as many as is said.
            let stored = unsafe {
                let at = (at & OFFSET_MASK) as u32;
                bpf_skb_store_bytes(self.ctx.as_ptr().cast(), at, bytes.as_ptr().cast(), N as u32, 0)
            };
            return (stored == 0).then_some(());
        }
        let start = self.at(at, N)?;
        // SAFETY: as in `load`; the verifier's prologue has made the packet's head writable.
        unsafe {
            match (bytes.first_chunk(), N % 4) {
                (Some(address), _) if N == 16 => {
                    ptr::write(start as *mut Number, Number(u128::from_ne_bytes(*address)));
                }
                (_, 0) => ptr::write(start as *mut Words<N>, Words(bytes)),
                (_, 2) => ptr::write(start as *mut Halves<N>, Halves(bytes)),
                _ => ptr::write(start as *mut [u8; N], bytes),
            }
        }
        Some(())
    }

    #[inline(always)]
    fn covers(&self) -> Option<Covers> {
        Covers::of(summed::ip_summed(self.ctx)?)
    }

    #[inline(always)]
    fn fix_device_sum(&mut self, diff: u32) {
        // SAFETY: numbers only. It fails where the device made no sum, and then there is none to be kept right.
        let _no_sum = unsafe { bpf_csum_update(self.ctx.as_ptr().cast(), diff) };
    }

    #[inline(always)]
    fn sctp_sums(&self, old: [u8; 4], ports: u32, length: u16, others: u32) -> Sums {
        cold::sctp_sums(old, ports, length, others)
    }

    #[inline(always)]
    fn fix_checksum(&mut self, fix: ChecksumFix) -> Option<()> {
        let udp = if fix.udp {
            u64::from(BPF_F_MARK_MANGLED_0)
        } else {
            0
        };
        if fix.pseudo != 0 {
            let flags = udp | u64::from(BPF_F_PSEUDO_HDR) | ipv6_flag(fix.ipv6);
            self.ctx
                .l4_csum_replace(fix.at, 0, u64::from(fix.pseudo), flags)
                .ok()?;
        }
        if fix.payload != 0 {
            self.ctx
                .l4_csum_replace(fix.at, 0, u64::from(fix.payload), udp)
                .ok()?;
        }
        Some(())
    }
}

/// The flag that keeps `skb->csum` right for IPv6, where the kernel knows it.
#[inline(always)]
fn ipv6_flag(ipv6: bool) -> u64 {
    let known = maps::CONFIG
        .get(0)
        .is_some_and(|config| config.checksum_ipv6_flag != 0);
    if ipv6 && known { u64::from(BPF_F_IPV6) } else { 0 }
}
