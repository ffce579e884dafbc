//! The transport checksum, for all that the kernel may say of it: the kernel corrects it, or weir does. What a device has
//! summed is in `device_sum.rs`.

use anyhow::{Context, Result};
use proxy_common::Ip;
use proxy_datapath::Scratch;
use proxy_datapath::packet::Covers;
use weir_packet::craft::{Checksum, Craft, Endpoint, SYN};
use weir_packet::decode::{decode, ones_sum, pseudo_header};
use weir_packet::node::{self, Host, Port};
use weir_packet::pair::Pair;
use weir_packet::user::{self, Arrival, Outcome, Program};

/// Of client and frontend, with another port behind it.
fn ends(v6: bool) -> (Endpoint, Endpoint) {
    ((Host::Pod1.ip(v6), 40_000), (Host::Vip(40).ip(v6), 443))
}

/// A packet from a pod, by its bytes.
fn from_pod(bytes: Vec<u8>) -> Arrival {
    Arrival::at(Program::PodIngress, Port::Pod1, bytes)
}

/// What becomes of a packet of a new connection.
fn translated(bytes: Vec<u8>, covers: Option<Covers>) -> Result<Outcome> {
    let pair = Pair::new(None, &node::rows(20_000))?;
    let outcome = user::run_covering(&pair.memory, &from_pod(bytes), covers, &mut Scratch::default());
    Ok(outcome)
}

fn packets(v6: bool, checksum: Checksum) -> [Craft; 2] {
    let (client, frontend) = ends(v6);
    let packets = [
        Craft::tcp(client, frontend, SYN).data(b"early".to_vec()),
        Craft::udp(client, (Host::Vip(43).ip(v6), 53)).data(b"?".to_vec()),
    ];
    packets.map(|packet| Craft { checksum, ..packet })
}

/// Where a packet's transport checksum is, and the sum over its pseudo-header.
fn pseudo_sum(bytes: &[u8]) -> Result<(usize, u16)> {
    let packet = decode(bytes, true).context("no packet")?;
    let at = packet.l4 + if packet.protocol == 17 { 6 } else { 16 };
    let (source, destination): (Ip, Ip) = (packet.source, packet.destination);
    let pseudo = pseudo_header(&source, &destination, packet.protocol, packet.end - packet.l4);
    Ok((at, ones_sum(&[&pseudo])))
}

/// By weir's own sums and by the kernel's: the same bytes.
#[test]
fn p1_it_does_not_matter_who_corrects_it() -> Result<()> {
    for v6 in [false, true] {
        for checksum in [Checksum::Right, Checksum::None, Checksum::Wrong] {
            for packet in packets(v6, checksum) {
                let bytes = packet.bytes(true);
                let kernels = translated(bytes.clone(), None)?;
                assert_ne!(kernels.bytes, bytes, "{packet:?} is translated");
                assert_eq!(translated(bytes, Some(Covers::ALL))?, kernels, "{packet:?}");
            }
        }
    }
    Ok(())
}

/// Offloaded: the field is the sum over the pseudo-header, before and after; the ports are the device's business.
#[test]
fn p1_an_offloaded_checksum_covers_the_addresses() -> Result<()> {
    for v6 in [false, true] {
        for packet in packets(v6, Checksum::Right) {
            let mut bytes = packet.bytes(true);
            let (at, sum) = pseudo_sum(&bytes)?;
            bytes.splice(at..at + 2, sum.to_be_bytes());
            let after = translated(bytes, Some(Covers::PSEUDO_HEADER))?.bytes;
            let (at, sum) = pseudo_sum(&after)?;
            assert_eq!(after.get(at..at + 2), Some(&sum.to_be_bytes()[..]), "{packet:?}");
        }
    }
    Ok(())
}

/// Every value of the field, and of what the kernel says.
#[test]
fn p1_what_the_kernel_says_is_understood() {
    let said = [0, 1, 2, 3].map(Covers::of);
    let known = [
        Some(Covers::ALL),
        Some(Covers::ALL),
        None,
        Some(Covers::PSEUDO_HEADER),
    ];
    assert_eq!(said, known);
}
