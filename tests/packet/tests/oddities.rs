//! Packets that nobody should send, and rows that nobody should write: in user space, one rule a test.

use anyhow::{Context, Result};
use proxy_common::{Backend, Ip, Reason};
use proxy_datapath::Verdict;
use weir_packet::craft::{ACK, Craft, INIT, SYN, error_about};
use weir_packet::decode::{decode, sums};
use weir_packet::node::{self, Host, Port};
use weir_packet::pair::Pair;
use weir_packet::user::{Arrival, Outcome, Program};

fn pair() -> Result<Pair> {
    Pair::new(None, &node::rows(20_000))
}

fn from_pod(pair: &mut Pair, bytes: Vec<u8>) -> Result<Outcome> {
    pair.run(&Arrival::at(Program::PodIngress, Port::Pod1, bytes))
}

/// An IPv6 packet between IPv4-mapped addresses, as they stand in the rows for IPv4.
fn mapped((source, source_port): (Ip, u16), (destination, port): (Ip, u16), flags: u8) -> Vec<u8> {
    let stand_in = Host::Pod1.ip(true);
    let mut bytes = Craft::tcp((stand_in, source_port), (stand_in, port), flags).bytes(true);
    bytes.splice(22..38, source.bytes);
    bytes.splice(38..54, destination.bytes);
    bytes
}

/// RFC 4291, 2.5.5.2: such addresses do not belong on the wire, and one would hit the rows of IPv4 connections.
#[test]
fn p3_an_ipv6_packet_does_not_reach_ipv4_rows() -> Result<()> {
    let mut pair = pair()?;
    let (client, frontend) = ((Host::Pod1.ip(false), 40_000), (Host::Vip(40).ip(false), 443));
    let outcome = from_pod(&mut pair, mapped(client, frontend, SYN))?;
    assert_eq!(outcome.verdict, Verdict::Pass(Reason::PassMalformed));
    assert!(pair.memory.rows().is_empty());

    // A reset of that kind does not close somebody's connection.
    let outcome = from_pod(&mut pair, Craft::tcp(client, frontend, SYN).bytes(true))?;
    assert_eq!(outcome.verdict, Verdict::Translate(Reason::NewFlow));
    let answer = mapped((Host::Remote(6).ip(false), 8443), client, 4);
    let arrival = Arrival::at(Program::PodEgress, Port::Pod1, answer);
    assert_eq!(pair.run(&arrival)?.verdict, Verdict::Ignore);
    Ok(())
}

/// The same inside an ICMPv6 error.
#[test]
fn an_icmpv6_error_is_not_about_ipv4() -> Result<()> {
    let mut pair = pair()?;
    let (client, frontend) = ((Host::Pod1.ip(false), 40_000), (Host::Vip(40).ip(false), 443));
    from_pod(&mut pair, Craft::tcp(client, frontend, SYN).bytes(true))?;
    let quoted = mapped(frontend, client, ACK);
    let quoted = quoted.get(14..).context("a frame without a packet")?;
    let ends = (Host::Pod1.ip(true), Host::Vip(40).ip(true));
    let error = error_about(quoted, ends, (2, 0), [0, 0, 5, 0]);
    assert_eq!(
        from_pod(&mut pair, error.bytes(true))?.verdict,
        Verdict::Drop(Reason::DropMalformed)
    );
    Ok(())
}

/// Array rows that nobody wrote are there, and zero: a slab that points at one must not send anybody to port 0 of no
/// address.
#[test]
fn a_slot_that_nobody_wrote_is_no_backend() -> Result<()> {
    let mut pair = pair()?;
    for row in pair.memory.backends.values_mut() {
        *row = Backend::default();
    }
    let (client, frontend) = ((Host::Pod1.ip(false), 40_000), (Host::Vip(40).ip(false), 443));
    let outcome = from_pod(&mut pair, Craft::tcp(client, frontend, SYN).bytes(true))?;
    assert_eq!(outcome.verdict, Verdict::Drop(Reason::DropBackendMissing));
    Ok(())
}

/// RFC 8200, 4.5: what follows the fragment header of a later fragment is data, whatever it looks like.
#[test]
fn p4_data_of_a_later_fragment_is_no_header() -> Result<()> {
    let mut pair = pair()?;
    let ends = ((Host::Pod1.ip(true), 40_000), (Host::Vip(53).ip(true), 53));
    let fragments = Craft::udp(ends.0, ends.1)
        .data(vec![0xff; 64])
        .fragments(9, &[4], true);
    let mut later = fragments.get(1).context("no second fragment")?.clone();
    // It says that a destination options header comes first, and its data would be a long one.
    later.splice(54..55, [60]);
    assert_eq!(
        from_pod(&mut pair, later)?.verdict,
        Verdict::Drop(Reason::DropProtocol)
    );
    Ok(())
}

/// A protocol that weir does not serve: dropped on a ClusterIP, which is on no machine, and the host's business on the
/// node's own addresses.
#[test]
fn p3_another_protocol_does_not_leave_for_a_cluster_ip() -> Result<()> {
    let mut pair = pair()?;
    let client = (Host::Pod1.ip(false), 40_000);
    for (destination, wanted) in [
        (Host::Vip(40).ip(false), Verdict::Drop(Reason::DropProtocol)),
        (Host::Node.ip(false), Verdict::Pass(Reason::PassProtocol)),
    ] {
        let mut dccp = Craft::tcp(client, (destination, 443), SYN).bytes(true);
        dccp.splice(23..24, [33]);
        assert_eq!(from_pod(&mut pair, dccp)?.verdict, wanted);
    }
    Ok(())
}

/// A group or nobody gets no answer (RFC 1122, 3.2.2): it would be sent to many, or to none.
#[test]
fn p12_nobody_but_a_host_is_answered() -> Result<()> {
    let mut pair = pair()?;
    for source in [[224, 0, 0, 1], [0, 0, 0, 0], [127, 0, 0, 1], [255, 255, 255, 255]] {
        let client = (Ip::v4(source), 40_000);
        let refused = Craft::tcp(client, (Host::Vip(40).ip(false), 81), SYN).bytes(true);
        assert_eq!(
            from_pod(&mut pair, refused)?.verdict,
            Verdict::Drop(Reason::DropUnanswerable)
        );
    }
    Ok(())
}

/// A SYN that is sent again does not go to a backend that left meanwhile; an established connection stays with its own.
#[test]
fn a_syn_does_not_stick_to_a_backend_that_is_gone() -> Result<()> {
    let mut pair = pair()?;
    let (client, frontend) = ((Host::Pod1.ip(false), 40_000), (Host::Vip(40).ip(false), 443));
    let syn = Craft::tcp(client, frontend, SYN).bytes(true);
    let new = Verdict::Translate(Reason::NewFlow);
    let known = Verdict::Translate(Reason::Forward);
    assert_eq!(from_pod(&mut pair, syn.clone())?.verdict, new);
    assert_eq!(from_pod(&mut pair, syn.clone())?.verdict, known);
    for state in pair.memory.states.borrow_mut().values_mut() {
        state.serving = 0;
    }
    assert_eq!(from_pod(&mut pair, syn.clone())?.verdict, new);
    let backend = (Host::Remote(6).ip(false), 8443);
    let answer = Craft::tcp(backend, client, SYN | ACK).bytes(true);
    let answered = pair.run(&Arrival::at(Program::PodEgress, Port::Pod1, answer))?;
    assert_eq!(answered.verdict, Verdict::Translate(Reason::Reverse));
    assert_eq!(
        from_pod(&mut pair, Craft::tcp(client, frontend, ACK).bytes(true))?.verdict,
        known
    );
    assert_eq!(from_pod(&mut pair, syn)?.verdict, known);
    Ok(())
}

/// A full table costs a new connection its packet, and leaves no half of it.
#[test]
fn a_full_flow_table_leaves_no_half() -> Result<()> {
    for limit in [0, 1] {
        let mut pair = pair()?;
        pair.memory.flow_limit = Some(limit);
        let ends = ((Host::Pod1.ip(false), 40_000), (Host::Vip(40).ip(false), 443));
        let outcome = from_pod(&mut pair, Craft::tcp(ends.0, ends.1, SYN).bytes(true))?;
        assert_eq!(
            outcome.verdict,
            Verdict::Drop(Reason::DropFlowTable),
            "room for {limit}"
        );
        assert!(pair.memory.rows().is_empty(), "room for {limit}");
    }
    Ok(())
}

/// Every prefix of a packet, so that no length is too short to be read safely.
#[test]
fn p3_packets_cut_off_anywhere_do_no_harm() -> Result<()> {
    let mut pair = pair()?;
    for v6 in [false, true] {
        let (client, frontend) = ((Host::Pod1.ip(v6), 40_000), (Host::Vip(40).ip(v6), 443));
        let tcp = Craft::tcp(client, frontend, SYN).data(vec![1; 9]);
        let udp = Craft::udp(client, (Host::Vip(53).ip(v6), 53)).data(vec![1; 9]);
        let sctp = Craft::sctp(client, (Host::Vip(72).ip(v6), 443), INIT).data(vec![1; 9]);
        let error = error_about(
            &tcp.bytes(false),
            (client.0, frontend.0),
            if v6 { (2, 0) } else { (3, 4) },
            [0; 4],
        );
        for whole in [
            tcp.bytes(true),
            udp.bytes(true),
            sctp.bytes(true),
            error.bytes(true),
        ] {
            for length in 0..whole.len() {
                let bytes = whole.get(..length).unwrap_or_default().to_vec();
                from_pod(&mut pair, bytes).with_context(|| format!("cut off after {length} bytes"))?;
            }
        }
    }
    Ok(())
}

/// The checksum of SCTP ends where the packet does, by its IP header: a frame may be padded behind, to Ethernet's least length.
#[test]
fn padding_is_in_no_checksum() -> Result<()> {
    let mut pair = pair()?;
    for v6 in [false, true] {
        let (client, frontend) = ((Host::Pod1.ip(v6), 40_000), (Host::Vip(72).ip(v6), 443));
        let mut padded = Craft::sctp(client, frontend, INIT).bytes(true);
        padded.extend([0; 10]);
        let outcome = from_pod(&mut pair, padded)?;
        assert_eq!(outcome.verdict, Verdict::Translate(Reason::NewFlow));
        let decoded = decode(&outcome.bytes, true).context("the translation cannot be read")?;
        assert_eq!(decoded.ports, Some((40_000, 8443)));
        assert_eq!(sums(&outcome.bytes, &decoded).transport, Some(true));
    }
    Ok(())
}

/// An SCTP packet that ends within its header, by its IP header, has no checksum that could be kept right.
#[test]
fn a_header_of_sctp_is_whole() -> Result<()> {
    let mut pair = pair()?;
    let ends = ((Host::Pod1.ip(false), 40_000), (Host::Vip(72).ip(false), 443));
    for (length, wanted) in [
        (31, Verdict::Drop(Reason::DropMalformed)),
        // Without a chunk it is no INIT, and without a tag nobody's.
        (32, Verdict::Drop(Reason::DropUnanswerable)),
        // Nor is it one whose chunk ends within its own header, whatever padding the frame has behind it.
        (35, Verdict::Drop(Reason::DropUnanswerable)),
        (36, Verdict::Translate(Reason::NewFlow)),
    ] {
        let mut short = Craft::sctp(ends.0, ends.1, INIT).bytes(true);
        short.splice(16..18, [0, length]);
        assert_eq!(from_pod(&mut pair, short)?.verdict, wanted, "{length}");
    }
    Ok(())
}
