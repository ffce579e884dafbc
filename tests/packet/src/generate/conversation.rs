//! A client and a service, talking: requests, answers, errors about either, in an order that is mostly right.

use proxy_common::Ip;

use crate::craft::{
    ABORT, ACK, Checksum, Craft, Endpoint, FIN, HEARTBEAT, INIT, INIT_ACK, PSH, RST, SHUTDOWN_COMPLETE, SYN,
    error_about,
};
use crate::decode::{Decoded, decode};
use crate::node::{BALANCER_ON_NODE, Host, Port};
use crate::pair::is_translated;
use crate::random::Random;
use crate::services::{RETIRED, SPECS};
use crate::user::{Arrival, Outcome, Program};

/// One five-tuple of a client, and what is known of its translation.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    v6: bool,
    protocol: u8,
    client: Endpoint,
    frontend: Endpoint,
    /// Where the client's packets come in.
    port: Port,
    /// Whether that is an interface of no pod's.
    guest: bool,
    ethernet: bool,
    /// What the backend sees: source and itself.
    seen: Option<(Endpoint, Endpoint)>,
    step: u32,
    datagram: u32,
}

const CLIENTS: [(Host, Port); 7] = [
    (Host::Pod1, Port::Pod1),
    (Host::Pod1, Port::Pod1),
    (Host::Pod2, Port::Pod2),
    (Host::Outside(7), Port::Uplink),
    (Host::Outside(8), Port::Uplink),
    (Host::Warrior(20), Port::Tunnel),
    (Host::Remote(9), Port::Overlay),
];

impl Conversation {
    /// A new one. Client ports are few, so that tuples are used again and different services collide.
    pub(super) fn begin(random: &mut Random, crowd: &[Self]) -> Self {
        let v6 = random.percent(50);
        let spec = random.pick(&SPECS).unwrap_or(SPECS[0]);
        let (host, port) = random.pick(&CLIENTS).unwrap_or(CLIENTS[0]);
        let outside = !matches!(port, Port::Pod1 | Port::Pod2);
        let external = spec.node_port != 0 && random.percent(if outside { 95 } else { 30 });
        let mut frontend = if external && random.percent(40) {
            let at = if random.percent(25) {
                BALANCER_ON_NODE
            } else {
                Host::Balancer(spec.vip)
            };
            (at.ip(v6), spec.port)
        } else if external {
            let gates = [
                Host::Node,
                Host::Node,
                Host::PodGate,
                Host::TunnelGate,
                Host::OverlayGate,
            ];
            (random.pick(&gates).unwrap_or(Host::Node).ip(v6), spec.node_port)
        } else {
            (Host::Vip(spec.vip).ip(v6), spec.port)
        };
        match random.below(40) {
            0 => frontend.0 = Host::Vip(RETIRED).ip(v6),
            2 => frontend.0 = Host::Balancer(RETIRED).ip(v6),
            1 => frontend.1 = frontend.1.wrapping_add(1),
            _ => {}
        }
        let mut client = (host.ip(v6), 40_000 + u16::from(random.byte() % 24));
        // The tuple of somebody else, to another service: the two may meet at one backend.
        if let Some(other) = crowd.get(random.below(crowd.len()))
            && other.port == port
            && other.v6 == v6
            && random.percent(50)
        {
            client = other.client;
        }
        let ethernet = port != Port::Tunnel;
        Self {
            v6,
            protocol: spec.protocol,
            client,
            frontend,
            port,
            guest: random.percent(10),
            ethernet,
            seen: None,
            step: 0,
            datagram: 0,
        }
    }

    /// What comes next: one packet, or several fragments.
    pub(super) fn say(&mut self, random: &mut Random) -> Vec<Arrival> {
        self.step += 1;
        let answer = self.seen.is_some() && random.percent(45);
        match random.below(100) {
            0..8 => self.error(random, answer).into_iter().collect(),
            8..16 if self.protocol != 6 => self.fragments(random, answer),
            16..18 => self.other_protocol(random),
            _ if answer => self.answer(random).into_iter().collect(),
            _ => vec![self.request(random)],
        }
    }

    /// Learns from what became of a request.
    pub(super) fn hear(&mut self, arrival: &Arrival, outcome: &Outcome) {
        if !is_translated(outcome.verdict)
            || !arrival.program.is_ingress()
            || arrival.interface != self.port.index()
        {
            return;
        }
        let ethernet = arrival.program.ethernet();
        let (Some(before), Some(after)) =
            (decode(&arrival.bytes, ethernet), decode(&outcome.bytes, ethernet))
        else {
            return;
        };
        if let (Some((source_port, _)), Some(ports)) = (before.ports, after.ports)
            && (before.source, source_port) == self.client
            && before.destination == self.frontend.0
        {
            self.seen = Some(((after.source, ports.0), (after.destination, ports.1)));
        }
    }

    fn request(&self, random: &mut Random) -> Arrival {
        let flags = match self.step {
            1 => SYN,
            2..4 => *[SYN, ACK, ACK].get(random.below(3)).unwrap_or(&ACK),
            _ => flags(random),
        };
        let packet = self.packet(random, (self.client, self.frontend), flags);
        self.at_client(packet.bytes(self.ethernet), random)
    }

    fn answer(&self, random: &mut Random) -> Option<Arrival> {
        let (source, backend) = self.seen?;
        let flags = if self.step < 4 { SYN | ACK } else { flags(random) };
        let packet = self.packet(random, (backend, source), flags);
        Some(self.send_back(&packet))
    }

    /// TCP, UDP or SCTP with something inside, and now and then something unusual around it.
    fn packet(&self, random: &mut Random, (source, destination): (Endpoint, Endpoint), flags: u8) -> Craft {
        let length = match random.below(30) {
            0 => 1300 + random.below(160),
            1 => 1372 - random.below(60),
            _ => random.below(40),
        };
        let mut packet = if self.protocol == 6 {
            Craft::tcp(source, destination, flags)
        } else if self.protocol == 132 {
            Craft::sctp(source, destination, chunk(random, flags))
        } else {
            Craft::udp(source, destination)
        }
        .data(random.bytes(length));
        packet.ttl = random.byte();
        packet.tos = random.byte();
        match random.below(40) {
            0 => packet.vlan = Some(5),
            1 => packet.options = vec![1, 1, 1, 0],
            2 => packet.extensions = vec![(0, random.bytes(6)), (60, random.bytes(14))],
            3 => packet.extensions = vec![(60, random.bytes(6)); random.below(7)],
            4 => packet.checksum = Checksum::Wrong,
            5 if self.protocol != 6 => packet.checksum = Checksum::None,
            _ => {}
        }
        packet
    }

    /// Cuts a datagram: in the middle of the payload, so that only the first piece has ports.
    fn fragments(&mut self, random: &mut Random, answer: bool) -> Vec<Arrival> {
        self.datagram += 1;
        let (source, destination) = match (answer, self.seen) {
            (true, Some((source, backend))) => (backend, source),
            _ => (self.client, self.frontend),
        };
        let packet = if self.protocol == 17 {
            Craft::udp(source, destination)
        } else {
            let flags = if self.step < 3 { SYN } else { ACK };
            Craft::sctp(source, destination, chunk(random, flags))
        };
        let packet = packet.data(random.bytes(300));
        let offsets = if random.percent(50) {
            &[8_u16][..]
        } else {
            &[2, 20]
        };
        let id = self.datagram % 5;
        let back = answer && self.seen.is_some();
        let ethernet = if back {
            self.backend_place().2
        } else {
            self.ethernet
        };
        let pieces = packet.fragments(id, offsets, ethernet);
        pieces
            .into_iter()
            .map(|bytes| {
                if back {
                    self.arrive_back(bytes, ethernet)
                } else {
                    self.at_client(bytes, random)
                }
            })
            .collect()
    }

    /// An ICMP error: about a request on its way to the backend, or about an answer on its way to the client.
    fn error(&self, random: &mut Random, about_request: bool) -> Option<Arrival> {
        let kinds: &[(u8, u8)] = if self.v6 {
            &[(1, 4), (2, 0), (3, 0), (4, 1)]
        } else {
            &[(3, 4), (3, 3), (11, 0)]
        };
        let kind = random.pick(kinds)?;
        let rest = [0, 0, 5, 0x14];
        if about_request {
            let (source, backend) = self.seen?;
            let quoted = self.packet(random, (source, backend), ACK).bytes(false);
            let from = if random.percent(50) {
                backend.0
            } else {
                Host::Router.ip(self.v6)
            };
            let error = error_about(&quoted, (from, source.0), kind, rest);
            return Some(self.send_back(&error));
        }
        let quoted = self
            .packet(random, (self.frontend, self.client), ACK)
            .bytes(false);
        let from = if random.percent(50) {
            self.client.0
        } else {
            Host::Router.ip(self.v6)
        };
        let error = error_about(&quoted, (from, self.frontend.0), kind, rest);
        Some(self.at_client(error.bytes(self.ethernet), random))
    }

    /// Echo requests, and transport protocols that weir does not know.
    fn other_protocol(&self, random: &mut Random) -> Vec<Arrival> {
        let kind = if self.v6 { (128, 0) } else { (8, 0) };
        let echo = Craft::icmp(self.client.0, self.frontend.0, kind, [0, 1, 0, 1]).data(random.bytes(16));
        let mut bytes = echo.bytes(self.ethernet);
        if random.percent(50)
            && let Some(decoded) = decode(&bytes, self.ethernet)
        {
            let at = if self.v6 { decoded.l3 + 6 } else { decoded.l3 + 9 };
            if let Some(protocol) = bytes.get_mut(at) {
                *protocol = random.pick(&[132, 50, 51, 4, 41, 47]).unwrap_or(132);
            }
        }
        vec![self.at_client(bytes, random)]
    }

    fn at_client(&self, bytes: Vec<u8>, random: &mut Random) -> Arrival {
        let program = match self.port {
            Port::Pod1 | Port::Pod2 if self.guest => Program::GuestIngress,
            Port::Pod1 | Port::Pod2 => Program::PodIngress,
            Port::Uplink | Port::Overlay => Program::UplinkIngress,
            Port::Tunnel => Program::UplinkL3Ingress,
        };
        let segment = if bytes.len() > 1000 && random.percent(50) {
            600
        } else {
            0
        };
        Arrival {
            program,
            interface: self.port.index(),
            segment,
            bytes,
        }
    }

    fn send_back(&self, packet: &Craft) -> Arrival {
        let (.., ethernet) = self.backend_place();
        self.arrive_back(packet.bytes(ethernet), ethernet)
    }

    /// Where the backend's packets are met: at ingress if they are for the node, else on their way out.
    fn backend_place(&self) -> (Program, Port, bool) {
        let hidden = self.seen.is_some_and(|(source, _)| source.0 != self.client.0);
        let local = |ip: Ip| {
            [Host::Pod1, Host::Pod2]
                .iter()
                .position(|pod| pod.ip(self.v6) == ip)
        };
        let backend = self.seen.map_or(self.frontend.0, |(_, backend)| backend.0);
        match (hidden, local(backend)) {
            (true, Some(0)) => (Program::PodIngress, Port::Pod1, true),
            (true, Some(_)) => (Program::PodIngress, Port::Pod2, true),
            (true, None) => (Program::UplinkIngress, Port::Overlay, true),
            (false, _) if matches!(self.port, Port::Pod1 | Port::Pod2) => {
                (Program::PodEgress, self.port, true)
            }
            (false, _) if self.ethernet => (Program::UplinkEgress, self.port, true),
            (false, _) => (Program::UplinkL3Egress, self.port, false),
        }
    }

    fn arrive_back(&self, bytes: Vec<u8>, ethernet: bool) -> Arrival {
        let (program, port, wanted) = self.backend_place();
        debug_assert_eq!(ethernet, wanted, "a packet made for another link");
        Arrival::at(program, port, bytes)
    }
}

/// A chunk of SCTP that means the same as TCP's flags.
fn chunk(random: &mut Random, flags: u8) -> u8 {
    let any = if flags & RST != 0 {
        [ABORT; 6]
    } else if flags & FIN != 0 {
        [7, 8, 7, 8, 8, SHUTDOWN_COMPLETE]
    } else {
        match flags & (SYN | ACK) {
            SYN => [INIT; 6],
            ACK => [0, 0, 3, HEARTBEAT, 10, 11],
            _ => [INIT_ACK; 6],
        }
    };
    random.pick(&any).unwrap_or(ABORT)
}

/// Flags in mid-stream; ends now and then.
fn flags(random: &mut Random) -> u8 {
    match random.below(12) {
        0 => FIN | ACK,
        1 => RST,
        2 => SYN,
        3 => RST | ACK,
        4 => FIN,
        _ => ACK | if random.percent(50) { PSH } else { 0 },
    }
}

/// The addresses of a packet, for those who want to change it.
pub(super) fn where_addresses(packet: &Decoded) -> (usize, usize) {
    if packet.family == 4 {
        (packet.l3 + 12, 8)
    } else {
        (packet.l3 + 8, 32)
    }
}
