//! Rows of the list of hard cases (docs/testing.md) that a script cannot tell: what is counted, or looked for among many.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use proxy_common::{Ip, Reason};
use proxy_datapath::Verdict;
use weir_packet::craft::{ACK, Craft, RST, SYN};
use weir_packet::decode::{decode, sums};
use weir_packet::kernel::Kernel;
use weir_packet::node::{self, Host, Port};
use weir_packet::pair::Pair;
use weir_packet::user::{Arrival, Outcome, Program};

fn from_pod(pair: &mut Pair, bytes: Vec<u8>) -> Result<Outcome> {
    pair.run(&Arrival::at(Program::PodIngress, Port::Pod1, bytes))
}

/// RFC 768 and RFC 8200, 8.1: 0 says that there is no checksum, so one that comes out as 0 is written as 0xffff.
fn no_checksum_becomes_zero(kernel: Option<Kernel>) -> Result<()> {
    let mut pair = Pair::new(kernel, &node::rows(20_000))?;
    for v6 in [false, true] {
        let client = (Host::Pod1.ip(v6), 40_000);
        let datagram = |word: u16| {
            let data = word.to_be_bytes().to_vec();
            Craft::udp(client, (Host::Vip(53).ip(v6), 53))
                .data(data)
                .bytes(true)
        };
        // The flow is there first: which word makes the sum 0 depends on the backend.
        let outcome = from_pod(&mut pair, datagram(0))?;
        let decoded = decode(&outcome.bytes, true).context("not readable")?;
        let at = decoded.l4 + 6;
        let field = |bytes: &[u8]| bytes.get(at..)?.first_chunk::<2>().copied();
        let [a, b] = field(&outcome.bytes).context("no checksum")?;
        // In ones' complement: a word of data more is a checksum of that much less.
        let sum = u16::from_be_bytes([a, b]);
        for word in [sum, sum.wrapping_sub(1), sum.wrapping_add(1)] {
            let outcome = from_pod(&mut pair, datagram(word))?;
            let found = field(&outcome.bytes).context("no checksum")?;
            assert_ne!(found, [0, 0], "IPv6 {v6}, word {word}");
            let decoded = decode(&outcome.bytes, true).context("not readable")?;
            assert_eq!(sums(&outcome.bytes, &decoded).transport, Some(true));
            if word == sum {
                assert_eq!(found, [0xff, 0xff], "IPv6 {v6}: the word was not the one");
            }
        }
    }
    Ok(())
}

#[test]
fn p1_a_udp_checksum_never_becomes_zero() -> Result<()> {
    no_checksum_becomes_zero(None)
}

#[test]
fn p1_a_udp_checksum_never_becomes_zero_in_the_kernel() -> Result<()> {
    if !weir_lab::require_root() {
        return Ok(());
    }
    no_checksum_becomes_zero(Some(Kernel::load()?))
}

/// What the parser does not know never goes on untranslated to a ClusterIP, and is the host's business on its own addresses.
/// (A header that is wrong in its first bytes is passed on: the stack refuses it before it looks where it goes.)
#[test]
fn p3_what_cannot_be_read_does_not_leave_for_a_cluster_ip() -> Result<()> {
    let mut pair = Pair::new(None, &node::rows(20_000))?;
    let six = |to: Ip| Craft::tcp((Host::Pod1.ip(true), 40_000), (to, 443), SYN);
    let next = |to: Ip, header: u8| {
        let mut bytes = six(to).bytes(true);
        bytes.splice(20..21, [header]);
        bytes
    };
    let many = |to: Ip| {
        let mut craft = six(to);
        craft.extensions = vec![(60, vec![1, 4, 0, 0, 0, 0]); 5];
        craft.bytes(true)
    };
    let long = |to: Ip| {
        let mut craft = six(to);
        craft.extensions = vec![(0, vec![0; 502])];
        craft.bytes(true)
    };
    let (vip, node) = (Host::Vip(40).ip(true), Host::Node.ip(true));
    let cases = [
        ("authentication header", next(vip, 51), next(node, 51)),
        ("encapsulating security payload", next(vip, 50), next(node, 50)),
        ("no next header", next(vip, 59), next(node, 59)),
        ("mobility header", next(vip, 135), next(node, 135)),
        ("five extension headers", many(vip), many(node)),
        ("a long extension header", long(vip), long(node)),
    ];
    for (what, to_vip, to_node) in cases {
        let verdict = from_pod(&mut pair, to_vip)?.verdict;
        assert!(matches!(verdict, Verdict::Drop(_)), "{what}: {verdict:?}");
        let verdict = from_pod(&mut pair, to_node)?.verdict;
        assert!(matches!(verdict, Verdict::Pass(_)), "{what}: {verdict:?}");
    }
    let mut four = Craft::tcp(
        (Host::Pod1.ip(false), 40_000),
        (Host::Vip(40).ip(false), 443),
        SYN,
    )
    .bytes(true);
    for first in [0x44, 0x55, 0x65, 0x05] {
        four.splice(14..15, [first]);
        let verdict = from_pod(&mut pair, four.clone())?.verdict;
        assert_eq!(verdict, Verdict::Pass(Reason::PassMalformed), "{first:#x}");
    }
    assert!(pair.memory.rows().is_empty());
    Ok(())
}

/// A first fragment without its whole TCP header (RFC 1858) is no beginning of anything.
#[test]
fn p4_a_tiny_fragment_is_dropped() -> Result<()> {
    let mut pair = Pair::new(None, &node::rows(20_000))?;
    for v6 in [false, true] {
        let tcp = Craft::tcp((Host::Pod1.ip(v6), 40_000), (Host::Vip(40).ip(v6), 443), SYN);
        // Pieces of 8 and 16 bytes: the flags are in the second, then in the first, whose header is not whole.
        for offset in [1, 2] {
            for piece in tcp.fragments(9, &[offset], true) {
                let verdict = from_pod(&mut pair, piece)?.verdict;
                assert!(matches!(verdict, Verdict::Drop(_)), "{offset}: {verdict:?}");
            }
        }
    }
    assert!(pair.memory.rows().is_empty());
    Ok(())
}

/// A client outside, of many, that asks the one backend of `alone`.
fn client(number: u16, v6: bool) -> (Ip, u16) {
    (
        Host::Outside(number.to_le_bytes()[1]).ip(v6),
        1_024 + (number & 0xff),
    )
}

/// Opens connections until one is dropped for want of a port; the ports that were given.
fn open_until_a_drop(pair: &mut Pair, v6: bool, most: u16) -> Result<Vec<u16>> {
    let mut ports = Vec::new();
    for number in 0..most {
        let syn = Craft::tcp(client(number, v6), (Host::Node.ip(v6), 30_443), SYN).bytes(true);
        let outcome = pair.run(&Arrival::at(Program::UplinkIngress, Port::Uplink, syn))?;
        match outcome.verdict {
            Verdict::Redirect(Reason::NewFlow) => {
                let decoded = decode(&outcome.bytes, true).context("not readable")?;
                ports.push(decoded.ports.context("no ports")?.0);
            }
            other => {
                assert_eq!(other, Verdict::Drop(Reason::DropSnatPorts));
                break;
            }
        }
    }
    Ok(ports)
}

/// Every port of a range that is no larger than the number of tries; of a large one nearly all.
#[test]
fn p8_ports_are_used_up_before_a_drop_and_never_twice() -> Result<()> {
    for v6 in [false, true] {
        for (range, least) in [(1, 1), (7, 7), (16, 16), (2_000, 1_000)] {
            let mut pair = Pair::new(None, &node::rows(range))?;
            let ports = open_until_a_drop(&mut pair, v6, range + 1)?;
            let different: BTreeSet<u16> = ports.iter().copied().collect();
            println!("{} of {range} ports before the first drop", ports.len());
            assert_eq!(different.len(), ports.len(), "a port was given twice");
            assert!(
                ports
                    .iter()
                    .all(|port| (node::SNAT_FIRST..node::SNAT_FIRST + range).contains(port))
            );
            assert!(ports.len() >= least, "{} of {range}", ports.len());
            // A connection that is over makes room for the one that waits, at the latest when its time is up.
            let (last, waiting) = (ports.len() - 1, u16::try_from(ports.len())?);
            let port = ports.get(last).context("no port")?;
            let backend = (Host::Remote(6).ip(v6), 8_443);
            let over = Craft::tcp(backend, (Host::OverlayGate.ip(v6), *port), RST | ACK).bytes(true);
            let arrival = Arrival::at(Program::UplinkIngress, Port::Overlay, over);
            assert_eq!(pair.run(&arrival)?.verdict, Verdict::Redirect(Reason::Reverse));
            pair.age(121)?;
            if range <= 16 {
                let syn = Craft::tcp(client(waiting, v6), (Host::Node.ip(v6), 30_443), SYN).bytes(true);
                let outcome = pair.run(&Arrival::at(Program::UplinkIngress, Port::Uplink, syn))?;
                assert_eq!(outcome.verdict, Verdict::Redirect(Reason::NewFlow));
            }
        }
    }
    Ok(())
}
