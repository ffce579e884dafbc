//! The hooks in user space: `proxy-ebpf/src/hooks/tc.rs` and `apply.rs`, on a [`Frame`] instead of a socket buffer.

use proxy_common::{Ip, Reason};
use proxy_datapath::packet::Covers;
use proxy_datapath::socket::Caller;
use proxy_datapath::tables::Tables;
use proxy_datapath::{Packet as _, Place, Scratch, Verdict, path, rewrite};

use crate::frame::Frame;
use crate::node::Port;

/// `TC_ACT_UNSPEC`.
pub const NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
pub const DROP: i32 = 2;
/// `TC_ACT_REDIRECT`.
pub const REDIRECT: i32 = 7;

/// The port that a [`Socket`] sends from.
pub const SOURCE_PORT: u16 = 41_000;

/// A socket of a host process or of a pod.
#[derive(Clone, Copy, Debug)]
pub struct Socket {
    /// The kernel's cookie of it.
    pub cookie: u64,
    /// Whether it is a host process'.
    pub host: bool,
}

impl Caller for Socket {
    fn cookie(&self) -> u64 {
        self.cookie
    }

    fn is_host(&self) -> bool {
        self.host
    }

    fn source_port(&self) -> u16 {
        SOURCE_PORT
    }
}

/// A packet program of the object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Program {
    /// From a pod.
    PodIngress,
    /// From what is no pod, where pods are.
    GuestIngress,
    /// From an uplink.
    UplinkIngress,
    /// From an uplink without link headers.
    UplinkL3Ingress,
    /// To a pod.
    PodEgress,
    /// To an uplink.
    UplinkEgress,
    /// To an uplink without link headers.
    UplinkL3Egress,
}

impl Program {
    /// Every packet program.
    pub const ALL: [Self; 7] = [
        Self::PodIngress,
        Self::GuestIngress,
        Self::UplinkIngress,
        Self::UplinkL3Ingress,
        Self::PodEgress,
        Self::UplinkEgress,
        Self::UplinkL3Egress,
    ];

    /// Its name in the object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PodIngress => "pod_ingress",
            Self::GuestIngress => "guest_ingress",
            Self::UplinkIngress => "uplink_ingress",
            Self::UplinkL3Ingress => "uplink_l3_ingress",
            Self::PodEgress => "pod_egress",
            Self::UplinkEgress => "uplink_egress",
            Self::UplinkL3Egress => "uplink_l3_egress",
        }
    }

    /// Whether packets enter the node's stack here.
    pub const fn is_ingress(self) -> bool {
        matches!(
            self,
            Self::PodIngress | Self::GuestIngress | Self::UplinkIngress | Self::UplinkL3Ingress
        )
    }

    /// Whether packets have a link header here.
    pub const fn ethernet(self) -> bool {
        !matches!(self, Self::UplinkL3Ingress | Self::UplinkL3Egress)
    }
}

/// A packet on its way into a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// The program that meets it.
    pub program: Program,
    /// The interface.
    pub interface: u32,
    /// Payload of each segment, if it is a GSO packet.
    pub segment: u32,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Arrival {
    /// A packet by itself at an interface.
    pub const fn at(program: Program, port: Port, bytes: Vec<u8>) -> Self {
        Self {
            program,
            interface: port.index(),
            segment: 0,
            bytes,
        }
    }

    /// Where it is met.
    pub const fn place(&self) -> Place {
        Place {
            interface: self.interface,
            uplink: matches!(self.program, Program::UplinkIngress | Program::UplinkL3Ingress),
            guest: matches!(self.program, Program::GuestIngress),
            ethernet: self.program.ethernet(),
        }
    }
}

/// What a program did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The number that it returned.
    pub action: i32,
    /// The packet afterwards.
    pub bytes: Vec<u8>,
    /// `Redirect`: interface and next hop.
    pub route: Option<(u32, Ip)>,
    /// The verdict; only user space knows it.
    pub verdict: Verdict,
}

/// Runs a program. The scratch may hold anything: in the kernel, it is what the packet before left there.
pub fn run(tables: &impl Tables, arrival: &Arrival, s: &mut Scratch) -> Outcome {
    run_covering(tables, arrival, Some(Covers::ALL), s)
}

/// Runs a program on a packet whose transport checksum covers this; `None` if the kernel does not say what.
pub fn run_covering(
    tables: &impl Tables,
    arrival: &Arrival,
    covers: Option<Covers>,
    s: &mut Scratch,
) -> Outcome {
    let place = arrival.place();
    let mut frame = Frame {
        bytes: arrival.bytes.clone(),
        segment: arrival.segment,
        covers,
    };
    let decided = if !arrival.program.is_ingress() {
        path::egress(&frame, tables, place, s)
    } else if path::is_foreign(&frame, tables, place.ethernet) {
        Verdict::Ignore
    } else {
        path::ingress(&frame, tables, place, s)
    };
    let done = match decided {
        Verdict::Ignore | Verdict::Pass(_) => Some(NEXT),
        Verdict::Drop(_) => Some(DROP),
        Verdict::Translate(_) => rewrite::apply(&mut frame, s).map(|()| NEXT),
        Verdict::Redirect(_) => rewrite::apply(&mut frame, s).map(|()| REDIRECT),
        Verdict::Reply(_) => reply(&mut frame, place, s).map(|()| REDIRECT),
    };
    let (verdict, action) = match done {
        Some(action) => (decided, action),
        None => (Verdict::Drop(Reason::DropRewrite), DROP),
    };
    let route = matches!(verdict, Verdict::Redirect(_)).then_some((s.route.interface, s.route.next_hop));
    Outcome {
        action,
        bytes: frame.bytes,
        route,
        verdict,
    }
}

/// Turns the packet into the reply: length, bytes, link addresses the other way round, checksum.
fn reply(frame: &mut Frame, place: Place, s: &Scratch) -> Option<()> {
    let l3 = usize::from(s.packet.l3);
    let length = usize::try_from(s.reply.length).ok()?;
    let answer = s.reply.bytes.get(..length).filter(|answer| !answer.is_empty())?;
    let addresses = if place.ethernet {
        Some(frame.load::<12>(0)?)
    } else {
        None
    };
    frame.bytes.resize(l3 + length, 0);
    frame.write(l3, answer)?;
    if let Some([to @ .., f0, f1, f2, f3, f4, f5]) = addresses {
        frame.write(0, &[f0, f1, f2, f3, f4, f5])?;
        frame.write(6, &to)?;
    }
    if s.reply.checksum_at != 0 {
        let at = l3 + usize::try_from(s.reply.checksum_at).ok()?;
        frame.replace_checksum(at, s.reply.checksum_diff, false)?;
    }
    Some(())
}
