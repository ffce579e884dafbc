//! A device may have summed the packet (`CHECKSUM_COMPLETE`): what changes in the packet must change that sum as well,
//! or the receiver reports a hardware failure for each packet.

use anyhow::{Context as _, Result};
use weir_packet::craft::{ACK, Checksum, Craft, DATA, Endpoint, INIT, INIT_ACK, SYN, error_about};
use weir_packet::kernel::Kernel;
use weir_packet::node::{self, Host, Port};
use weir_packet::user::{Arrival, NEXT, Program, REDIRECT};

fn from_pod(port: Port, packet: &Craft) -> Arrival {
    Arrival::at(Program::PodIngress, port, packet.bytes(true))
}

fn to_pod(port: Port, packet: &Craft) -> Arrival {
    Arrival::at(Program::PodEgress, port, packet.bytes(true))
}

fn from_outside(packet: &Craft) -> Arrival {
    Arrival::at(Program::UplinkIngress, Port::Uplink, packet.bytes(true))
}

/// Runs packets, which must get these answers of the program, in both families.
fn run(packets: impl Fn(bool) -> Vec<(&'static str, Arrival, i32)>) -> Result<()> {
    if !weir_lab::require_root() {
        return Ok(());
    }
    let mut kernel = Kernel::load()?;
    kernel.reset(&node::rows(1))?;
    for v6 in [false, true] {
        for (what, arrival, wanted) in packets(v6) {
            let action = kernel
                .run_summed(&arrival)
                .with_context(|| format!("{what}, IPv6 {v6}"))?;
            let Some(action) = action else {
                println!("SKIP: this kernel cannot pretend that a device has summed a packet");
                return Ok(());
            };
            assert_eq!(action, wanted, "{what}, IPv6 {v6}");
        }
    }
    Ok(())
}

/// On through the stack: the addresses and ports of the packet, and of what it quotes.
#[test]
fn p1_a_packet_that_is_translated() -> Result<()> {
    run(|v6| {
        let pod: Endpoint = (Host::Pod1.ip(v6), 40_000);
        let (frontend, backend) = ((Host::Vip(45).ip(v6), 8080), (Host::Pod2.ip(v6), 8080));
        let (dns, dns_backend) = ((Host::Vip(43).ip(v6), 53), (Host::Pod1.ip(v6), 9053));
        let client: Endpoint = (Host::Pod2.ip(v6), 40_000);
        let kind = if v6 { (2, 0) } else { (3, 4) };
        let about = Craft::tcp(backend, pod, ACK).data(vec![7; 8]).bytes(false);
        let error = error_about(&about, (Host::Router.ip(v6), pod.0), kind, [0, 0, 5, 0]);
        let datagram = Craft::udp(client, dns).data(vec![7; 300]);
        let answer = Craft::udp(dns_backend, client).data(vec![7; 99]);
        let mut packets = vec![
            ("SYN", from_pod(Port::Pod1, &Craft::tcp(pod, frontend, SYN)), NEXT),
            (
                "answer",
                to_pod(Port::Pod1, &Craft::tcp(backend, pod, SYN | ACK)),
                NEXT,
            ),
            ("error", to_pod(Port::Pod1, &error), NEXT),
            ("datagram", from_pod(Port::Pod2, &Craft::udp(client, dns)), NEXT),
            ("its answer", to_pod(Port::Pod2, &answer), NEXT),
        ];
        for piece in datagram.fragments(7, &[8, 20], true) {
            packets.push((
                "fragment",
                Arrival::at(Program::PodIngress, Port::Pod2, piece),
                NEXT,
            ));
        }
        packets
    })
}

/// Past the stack, with one hop less: the hop limit of IPv6 is in no checksum of the packet.
#[test]
fn p1_a_packet_that_goes_past_the_stack() -> Result<()> {
    run(|v6| {
        let client: Endpoint = (Host::Outside(7).ip(v6), 50_000);
        let frontend: Endpoint = (Host::Node.ip(v6), 30443);
        let backend: Endpoint = (Host::Remote(6).ip(v6), 8443);
        let gate: Endpoint = (Host::OverlayGate.ip(v6), node::SNAT_FIRST);
        let answer = Craft::tcp(backend, gate, SYN | ACK).bytes(true);
        vec![
            ("SYN", from_outside(&Craft::tcp(client, frontend, SYN)), REDIRECT),
            (
                "answer",
                Arrival::at(Program::UplinkIngress, Port::Overlay, answer),
                REDIRECT,
            ),
            (
                "data",
                from_outside(&Craft::tcp(client, frontend, ACK).data(vec![7; 99])),
                REDIRECT,
            ),
        ]
    })
}

/// In the place of the packet: a reset, and errors. Each packet is as long as its answer, as the kernel gives the sum up
/// when a packet gets another length.
#[test]
fn p1_a_packet_that_is_answered() -> Result<()> {
    run(|v6| {
        let pod: Endpoint = (Host::Pod1.ip(v6), 40_000);
        let (client, frontend) = ((Host::Outside(7).ip(v6), 50_000), (Host::Node.ip(v6), 30443));
        let nobody: Endpoint = (Host::Vip(30).ip(v6), 80);
        let nobody_udp: Endpoint = (Host::Vip(31).ip(v6), 53);
        // The headers of the answer and of the quote, and eight bytes each of ICMP and of what is quoted.
        let length = if v6 { 40 + 48 } else { 20 + 28 } + 8;
        let data = |headers: usize| vec![7; length - headers - if v6 { 40 } else { 20 }];
        let mut far = Craft::tcp(client, frontend, SYN).data(data(20));
        far.ttl = 1;
        let datagram = Craft::udp(pod, nobody_udp).data(data(8));
        vec![
            (
                "SYN",
                from_pod(Port::Pod1, &Craft::tcp(pod, nobody, SYN)),
                REDIRECT,
            ),
            (
                "ACK",
                from_pod(Port::Pod1, &Craft::tcp(pod, nobody, ACK)),
                REDIRECT,
            ),
            ("datagram", from_pod(Port::Pod1, &datagram), REDIRECT),
            ("last hop", from_outside(&far), REDIRECT),
        ]
    })
}

/// SCTP: its checksum is in no device's sum as such, but its bytes are, and the ports; and nothing of it balances the addresses of
/// IPv6.
#[test]
fn an_sctp_packet() -> Result<()> {
    run(|v6| {
        let pod: Endpoint = (Host::Pod1.ip(v6), 40_000);
        let (frontend, backend) = ((Host::Vip(72).ip(v6), 443), (Host::Remote(6).ip(v6), 8443));
        let (client, node_port) = ((Host::Outside(7).ip(v6), 50_000), (Host::Node.ip(v6), 30195));
        // Whose turn it is, so that nobody meets himself.
        let (near, here, itself) = if v6 {
            (Port::Pod2, Host::Pod2, Host::Pod1)
        } else {
            (Port::Pod1, Host::Pod1, Host::Pod2)
        };
        let (same_port, itself) = ((Host::Vip(71).ip(v6), 8080), (itself.ip(v6), 8080));
        let other: Endpoint = (here.ip(v6), 40_001);
        let data = Craft::sctp(pod, frontend, DATA).data(vec![7; 99]);
        let answer = Craft::sctp(backend, pod, INIT_ACK).data(vec![7; 301]);
        let mut options = data.clone();
        options.options = vec![1, 1, 1, 0];
        options.extensions = vec![(60, vec![1, 4, 0, 0, 0, 0])];
        let piece = Craft::sctp(other, same_port, INIT).data(vec![7; 300]);
        let mut packets = vec![
            (
                "INIT",
                from_pod(Port::Pod1, &Craft::sctp(pod, frontend, INIT)),
                NEXT,
            ),
            ("INIT ACK", to_pod(Port::Pod1, &answer), NEXT),
            ("data", from_pod(Port::Pod1, &data), NEXT),
            (
                "no checksum",
                from_pod(Port::Pod1, &data.clone().checksum(Checksum::None)),
                NEXT,
            ),
            ("options", from_pod(Port::Pod1, &options), NEXT),
            (
                "from outside",
                from_outside(&Craft::sctp(client, node_port, INIT).data(vec![7; 20])),
                REDIRECT,
            ),
            (
                "mid-stream",
                // As long as its answer.
                from_outside(&Craft::sctp((client.0, 50_001), node_port, DATA)),
                REDIRECT,
            ),
        ];
        for bytes in piece.fragments(7, &[8, 20], true) {
            packets.push(("fragment", Arrival::at(Program::PodIngress, near, bytes), NEXT));
        }
        let answer = Craft::sctp(itself, other, INIT_ACK);
        packets.push(("same port", to_pod(near, &answer), NEXT));
        packets
    })
}
