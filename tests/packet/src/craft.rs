//! Makes packets: Ethernet, VLAN, IPv4 with options, IPv6 with extension headers, TCP, UDP, SCTP, ICMP with quotes, fragments.

use proxy_common::Ip;

use crate::decode::{crc32c, ones_sum, pseudo_header};

/// TCP flag FIN.
pub const FIN: u8 = 0x01;
/// TCP flag SYN.
pub const SYN: u8 = 0x02;
/// TCP flag RST.
pub const RST: u8 = 0x04;
/// TCP flag PSH.
pub const PSH: u8 = 0x08;
/// TCP flag ACK.
pub const ACK: u8 = 0x10;

/// SCTP chunk DATA.
pub const DATA: u8 = 0;
/// SCTP chunk INIT.
pub const INIT: u8 = 1;
/// SCTP chunk INIT ACK.
pub const INIT_ACK: u8 = 2;
/// SCTP chunk HEARTBEAT.
pub const HEARTBEAT: u8 = 4;
/// SCTP chunk ABORT.
pub const ABORT: u8 = 6;
/// SCTP chunk SHUTDOWN COMPLETE.
pub const SHUTDOWN_COMPLETE: u8 = 14;

/// An address and a port.
pub type Endpoint = (Ip, u16);

/// What a packet carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// TCP.
    Tcp {
        /// Sequence number.
        seq: u32,
        /// Acknowledgement number.
        ack: u32,
        /// Flags.
        flags: u8,
        /// Window.
        window: u16,
    },
    /// UDP.
    Udp,
    /// SCTP, with one chunk.
    Sctp {
        /// Verification tag.
        tag: u32,
        /// Type of the chunk.
        chunk: u8,
        /// Flags of the chunk.
        flags: u8,
    },
    /// ICMP or ICMPv6, as the addresses say.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The four bytes behind the checksum.
        rest: [u8; 4],
    },
}

/// What to put where the transport checksum is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    /// The right one.
    Right,
    /// Zero: UDP's "none", SCTP's "computed later".
    None,
    /// A wrong one.
    Wrong,
}

/// A packet to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Craft {
    /// From whom; ICMP has no port.
    pub source: Endpoint,
    /// To whom.
    pub destination: Endpoint,
    /// Transport header.
    pub body: Body,
    /// What follows it.
    pub data: Vec<u8>,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Type of service, or traffic class.
    pub tos: u8,
    /// IPv4 identification of a whole datagram, or flow label.
    pub id: u16,
    /// VLAN tag.
    pub vlan: Option<u16>,
    /// IPv4 options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers: number and contents behind the two first bytes, six bytes and a multiple of eight.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Transport checksum.
    pub checksum: Checksum,
}

/// A fragment of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Piece {
    id: u32,
    offset: u16,
    more: bool,
}

impl Craft {
    fn new(source: Endpoint, destination: Endpoint, body: Body) -> Self {
        Self {
            source,
            destination,
            body,
            data: Vec::new(),
            ttl: 63,
            tos: 0x28,
            id: 0x1234,
            vlan: None,
            options: Vec::new(),
            extensions: Vec::new(),
            checksum: Checksum::Right,
        }
    }

    /// A TCP segment.
    pub fn tcp(source: Endpoint, destination: Endpoint, flags: u8) -> Self {
        Self::new(
            source,
            destination,
            Body::Tcp {
                seq: 1000,
                ack: 2000,
                flags,
                window: 64_240,
            },
        )
    }

    /// A UDP datagram.
    pub fn udp(source: Endpoint, destination: Endpoint) -> Self {
        Self::new(source, destination, Body::Udp)
    }

    /// An SCTP packet with one chunk.
    pub fn sctp(source: Endpoint, destination: Endpoint, chunk: u8) -> Self {
        let tag = if chunk == INIT { 0 } else { 0x0102_0304 };
        Self::new(source, destination, Body::Sctp { tag, chunk, flags: 0 })
    }

    /// An ICMP or ICMPv6 message; `data` of an error is the quote.
    pub fn icmp(source: Ip, destination: Ip, (kind, code): (u8, u8), rest: [u8; 4]) -> Self {
        Self::new((source, 0), (destination, 0), Body::Icmp { kind, code, rest })
    }

    /// With a payload.
    #[must_use]
    pub fn data(mut self, data: Vec<u8>) -> Self {
        self.data = data;
        self
    }

    /// With a checksum of this sort.
    #[must_use]
    pub const fn checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = checksum;
        self
    }

    /// The packet, with or without a link header.
    pub fn bytes(&self, ethernet: bool) -> Vec<u8> {
        let transport = self.transport();
        self.wrap(&transport, None, ethernet)
    }

    /// The datagram in fragments that begin at the given offsets behind the first, in units of eight bytes.
    pub fn fragments(&self, id: u32, offsets: &[u16], ethernet: bool) -> Vec<Vec<u8>> {
        let transport = self.transport();
        let starts = std::iter::once(0).chain(offsets.iter().copied());
        let ends = offsets.iter().map(|at| Some(*at)).chain(std::iter::once(None));
        starts
            .zip(ends)
            .filter_map(|(start, end)| {
                let from = usize::from(start) * 8;
                let to = end.map_or(transport.len(), |end| usize::from(end) * 8);
                let part = transport.get(from..to)?;
                let piece = Piece {
                    id,
                    offset: start,
                    more: end.is_some(),
                };
                Some(self.wrap(part, Some(piece), ethernet))
            })
            .collect()
    }

    fn protocol(&self) -> u8 {
        match self.body {
            Body::Tcp { .. } => 6,
            Body::Udp => 17,
            Body::Sctp { .. } => 132,
            Body::Icmp { .. } if self.source.0.is_v4() => 1,
            Body::Icmp { .. } => 58,
        }
    }

    /// Transport header and payload, with the checksum.
    fn transport(&self) -> Vec<u8> {
        let (source, destination) = (self.source.1.to_be_bytes(), self.destination.1.to_be_bytes());
        let length = u16::try_from(8 + self.data.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes();
        let (mut bytes, at) = match self.body {
            Body::Tcp {
                seq,
                ack,
                flags,
                window,
            } => {
                let numbers = [seq.to_be_bytes(), ack.to_be_bytes()].concat();
                let [wide, narrow] = window.to_be_bytes();
                let rest = [5 << 4, flags, wide, narrow, 0, 0, 0, 0];
                ([&source[..], &destination, &numbers, &rest].concat(), 16)
            }
            Body::Udp => ([source, destination, length, [0, 0]].concat(), 6),
            Body::Sctp { tag, chunk, flags } => return self.sctp_bytes(tag, chunk, flags),
            Body::Icmp { kind, code, rest } => ([&[kind, code, 0, 0][..], &rest].concat(), 2),
        };
        bytes.extend_from_slice(&self.data);
        let pseudo = pseudo_header(&self.source.0, &self.destination.0, self.protocol(), bytes.len());
        let counted = if self.protocol() == 1 {
            ones_sum(&[&bytes])
        } else {
            ones_sum(&[&pseudo, &bytes])
        };
        let right = match !counted {
            0 if self.protocol() == 17 => 0xffff,
            sum => sum,
        };
        let field = match self.checksum {
            Checksum::Right => right,
            Checksum::None => 0,
            Checksum::Wrong => right ^ 0x5a5a,
        };
        set(&mut bytes, at, field);
        bytes
    }

    /// SCTP, padded to whole words.
    fn sctp_bytes(&self, tag: u32, chunk: u8, flags: u8) -> Vec<u8> {
        let [high, low] = u16::try_from(4 + self.data.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes();
        let ports = [self.source.1.to_be_bytes(), self.destination.1.to_be_bytes()].concat();
        let chunk = [&[chunk, flags, high, low][..], &self.data].concat();
        let mut bytes = [&ports[..], &tag.to_be_bytes(), &[0; 4], &chunk].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let right = crc32c(&bytes);
        let field = match self.checksum {
            Checksum::Right => right,
            Checksum::None => 0,
            Checksum::Wrong => right ^ 0x5a5a,
        };
        bytes.splice(8..12, field.to_le_bytes());
        bytes
    }

    fn wrap(&self, payload: &[u8], piece: Option<Piece>, ethernet: bool) -> Vec<u8> {
        let v4 = self.source.0.is_v4();
        let network = if v4 {
            self.ipv4(payload, piece)
        } else {
            self.ipv6(payload, piece)
        };
        if !ethernet {
            return network;
        }
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        if let Some(tag) = self.vlan {
            bytes.extend_from_slice(&[0x81, 0]);
            bytes.extend_from_slice(&tag.to_be_bytes());
        }
        bytes.extend_from_slice(if v4 { &[8, 0] } else { &[0x86, 0xdd] });
        bytes.extend(network);
        bytes
    }

    fn ipv4(&self, payload: &[u8], piece: Option<Piece>) -> Vec<u8> {
        let header = 20 + self.options.len();
        let total = u16::try_from(header + payload.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes();
        let version = 0x40 | u8::try_from(header / 4).unwrap_or(5);
        let [_, _, id_a, id_b] = piece.map_or(u32::from(self.id), |piece| piece.id).to_be_bytes();
        let pieces = piece
            .map_or(0x4000, |piece| piece.offset | u16::from(piece.more) << 13)
            .to_be_bytes();
        let mut bytes = vec![
            version, self.tos, total[0], total[1], id_a, id_b, pieces[0], pieces[1],
        ];
        bytes.extend_from_slice(&[self.ttl, self.protocol(), 0, 0]);
        bytes.extend_from_slice(&self.source.0.v4_bytes());
        bytes.extend_from_slice(&self.destination.0.v4_bytes());
        bytes.extend_from_slice(&self.options);
        let sum = !ones_sum(&[&bytes]);
        set(&mut bytes, 10, sum);
        bytes.extend_from_slice(payload);
        bytes
    }

    fn ipv6(&self, payload: &[u8], piece: Option<Piece>) -> Vec<u8> {
        // From the back: each header names what follows it.
        let mut next = self.protocol();
        let mut tail = payload.to_vec();
        if let Some(piece) = piece {
            let pieces = (piece.offset << 3 | u16::from(piece.more)).to_be_bytes();
            let header = [&[next, 0][..], &pieces, &piece.id.to_be_bytes()].concat();
            tail.splice(0..0, header);
            next = 44;
        }
        for (kind, contents) in self.extensions.iter().rev() {
            let units = u8::try_from((contents.len() + 2) / 8)
                .unwrap_or(1)
                .saturating_sub(1);
            tail.splice(0..0, [&[next, units][..], contents].concat());
            next = *kind;
        }
        let [label_a, label_b] = self.id.to_be_bytes();
        let length = u16::try_from(tail.len()).unwrap_or(u16::MAX).to_be_bytes();
        let mut bytes = vec![
            0x60 | self.tos >> 4,
            self.tos << 4,
            label_a,
            label_b,
            length[0],
            length[1],
            next,
            self.ttl,
        ];
        bytes.extend_from_slice(&self.source.0.bytes);
        bytes.extend_from_slice(&self.destination.0.bytes);
        bytes.extend(tail);
        bytes
    }
}

fn set(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// An ICMP error that quotes `packet`, which begins with its IP header.
pub fn error_about(
    packet: &[u8],
    (source, destination): (Ip, Ip),
    (kind, code): (u8, u8),
    rest: [u8; 4],
) -> Craft {
    let quote = packet
        .get(..packet.len().min(if source.is_v4() { 28 } else { 88 }))
        .unwrap_or(packet);
    Craft::icmp(source, destination, (kind, code), rest).data(quote.to_vec())
}
