//! What must hold for a packet that is sent on: it is the same but for its addresses, and its answer finds back.

use anyhow::{Context, Result, bail, ensure};
use proxy_common::{
    Address, AddressKind, Backend, FlowKey, FrontendFlag, FrontendKind, Hook, Ip, Reason, Scope, Service,
    ServiceKey, TrafficPolicy,
};
use proxy_datapath::service::lets_in;
use proxy_datapath::{Scratch, Verdict};

use super::{affinity, is_over};
use crate::craft::{ACK, DATA, INIT, INIT_ACK, RST, SYN};
use crate::decode::{Decoded, crc32c, decode, editable, ones_sum, sums};
use crate::frozen::Frozen;
use crate::memory::{Memory, Touched};
use crate::user::{self, Arrival, Outcome, Program};

/// A translation changes addresses, ports and checksums, and nothing else; checksums stay as right as they were. What
/// goes past the stack has one hop less to go, as the stack would have it.
pub(super) fn translated(
    memory: &Memory,
    arrival: &Arrival,
    (outcome, touched): (&Outcome, &Touched),
    reason: Reason,
) -> Result<()> {
    let ethernet = arrival.program.ethernet();
    let before = decode(&arrival.bytes, ethernet).context("a packet that cannot be read was translated")?;
    let after = decode(&outcome.bytes, ethernet).context("the translation cannot be read")?;
    let hops = u8::from(matches!(outcome.verdict, Verdict::Redirect(_)));
    ensure!(before.hop_limit > hops || hops == 0, "sent on with no hop left");
    same_but_for(
        &counted_down(arrival.bytes.clone(), &before, hops),
        &outcome.bytes,
        &before,
    )?;
    let (was, is) = (sums(&arrival.bytes, &before), sums(&outcome.bytes, &after));
    ensure!(was == is, "checksums: {was:?} became {is:?}");
    if let (Some(was), Some(is)) = (&before.inner, &after.inner) {
        let (was, is) = (sums(&arrival.bytes, was).header, sums(&outcome.bytes, is).header);
        ensure!(was == is, "checksum of the quoted header: {was:?} became {is:?}");
    }
    if reason == Reason::NewFlow {
        let backend = listed(memory, arrival, &before, &after)?;
        affinity::sticks(memory, (arrival, &before), &backend, touched)?;
    }
    if matches!(reason, Reason::NewFlow | Reason::Forward) && !before.fragment {
        there_and_back(memory, arrival, outcome, (&before, &after))?;
    }
    Ok(())
}

fn same_but_for(before: &[u8], after: &[u8], packet: &Decoded) -> Result<()> {
    ensure!(before.len() == after.len(), "the length has changed");
    let ranges = editable(packet);
    for (at, (old, new)) in before.iter().zip(after).enumerate() {
        ensure!(
            old == new || ranges.iter().any(|range| range.contains(&at)),
            "byte {at} has changed"
        );
    }
    Ok(())
}

/// The service that a packet asks for, and whether for endpoints of this node only.
pub(super) fn asked(memory: &Memory, arrival: &Arrival, packet: &Decoded) -> Option<(Service, bool)> {
    let node = memory.addresses.get(&packet.destination)?.kind == AddressKind::Node.code();
    let (_, port) = packet.ports?;
    let key = |address, scope: Scope| ServiceKey {
        address,
        port,
        protocol: packet.protocol,
        scope: scope.code(),
    };
    let node_port = match packet.family {
        4 => Scope::NodePortV4,
        _ => Scope::NodePortV6,
    };
    let named = memory.services.get(&key(packet.destination, Scope::Address));
    let service = *named.or_else(|| {
        memory
            .services
            .get(&key(Ip::UNSPECIFIED, node_port))
            .filter(|_| node)
    })?;
    if service.has(FrontendFlag::Guarded) && !lets_in(memory, &service, &packet.source) {
        return None;
    }
    let inside = is_pod(memory, arrival, packet) && service.kind != FrontendKind::ClusterIp.code();
    let local = service.policy == TrafficPolicy::Local.code() && !inside;
    Some((service, local))
}

/// Whether a packet is a pod's of this node, by where it comes in and by its address.
fn is_pod(memory: &Memory, arrival: &Arrival, packet: &Decoded) -> bool {
    arrival.program == Program::PodIngress && memory.local_sources.have(&packet.source)
}

/// Whether the operator wants the source of a connection to be changed, wherever its backend is.
fn masquerades(memory: &Memory, arrival: &Arrival, (packet, service): (&Decoded, &Service)) -> bool {
    let cluster_ip = service.kind == FrontendKind::ClusterIp.code();
    service.has(FrontendFlag::Masqueraded) || (cluster_ip && !is_pod(memory, arrival, packet))
}

/// The backends of a service that a packet may be sent to.
pub(super) fn offered(memory: &Memory, service: &Service, local: bool) -> Vec<Backend> {
    let range = if local { service.local } else { service.cluster };
    let slots = range.base..range.base + range.count;
    slots
        .filter_map(|slot| memory.backends.get(&slot).copied())
        .collect()
}

fn listed(memory: &Memory, arrival: &Arrival, before: &Decoded, after: &Decoded) -> Result<Backend> {
    let (service, local) = asked(memory, arrival, before).context("a new flow to no service")?;
    let listed = offered(memory, &service, local);
    let chosen = listed.iter().find(|backend| {
        backend.address == after.destination && after.ports.is_some_and(|(_, port)| port == backend.port)
    });
    let chosen = chosen.with_context(|| format!("sent to {after:?}, which is not in {listed:?}"))?;
    let hidden = after.source != before.source;
    let away = arrival.place().uplink && chosen.local == 0;
    let wanted = away || masquerades(memory, arrival, (before, &service));
    let is_node = |address| memory.addresses.get(address).is_some_and(Address::is_node);
    let wanted = wanted && !is_node(&chosen.address) || chosen.address == before.source;
    // The node's own address may stand there already: somebody has forged it.
    ensure!(
        hidden == wanted || (wanted && is_node(&before.source)),
        "source address changed: {hidden}"
    );
    Ok(*chosen)
}

/// The answer to a translated packet is translated back: from whom the client asked, to whom it asked as.
fn there_and_back(
    memory: &Memory,
    arrival: &Arrival,
    outcome: &Outcome,
    (before, after): (&Decoded, &Decoded),
) -> Result<()> {
    let hidden = before.source != after.source;
    let mut answer = answer(arrival, outcome, after, hidden);
    // Somebody may have forged the very address that hides clients.
    let is_node = |address| memory.addresses.get(address).is_some_and(Address::is_node);
    if !hidden && is_node(&before.source) && !answerable(memory, &answer, (before, after)) {
        answer = self::answer(arrival, outcome, after, true);
    }
    if !answerable(memory, &answer, (before, after)) {
        ensure!(
            outcome.verdict.reason() != Some(Reason::NewFlow),
            "a new flow that no answer finds"
        );
        return Ok(());
    }
    let back = user::run(&Frozen(memory), &answer, &mut Scratch::default());
    match back.verdict {
        Verdict::Translate(Reason::Reverse) | Verdict::Redirect(Reason::Reverse) => {}
        Verdict::Reply(Reason::RejectTooBig | Reason::RejectHopLimit)
        | Verdict::Drop(Reason::DropNoRoute | Reason::DropUnanswerable) => return Ok(()),
        other => bail!(
            "the answer at {:?} is not translated back: {other:?}",
            answer.program
        ),
    }
    let hops =
        before.hop_limit - decode(&back.bytes, arrival.program.ethernet()).map_or(0, |back| back.hop_limit);
    let past = [outcome.verdict, back.verdict].map(|verdict| matches!(verdict, Verdict::Redirect(_)));
    ensure!(
        usize::from(hops) == past.iter().filter(|past| **past).count(),
        "there and back in {hops} hops"
    );
    let wanted = counted_down(turned(&arrival.bytes, before), before, hops);
    let wanted = without_syn(wanted, before);
    ensure!(
        without_zero_sums(&back.bytes, before) == without_zero_sums(&wanted, before),
        "there and back is not where it began:\n  {:02x?}\n  {:02x?}",
        back.bytes,
        wanted
    );
    Ok(())
}

/// The answer to a translated packet, where it is met: at ingress if it is for the node, which hides the client.
fn answer(arrival: &Arrival, outcome: &Outcome, after: &Decoded, hidden: bool) -> Arrival {
    let program = match (hidden, arrival.program.ethernet()) {
        (true, true) => Program::UplinkIngress,
        (true, false) => Program::UplinkL3Ingress,
        (false, true) if matches!(arrival.program, Program::PodIngress | Program::GuestIngress) => {
            Program::PodEgress
        }
        (false, true) => Program::UplinkEgress,
        (false, false) => Program::UplinkL3Egress,
    };
    Arrival {
        program,
        bytes: without_syn(turned(&outcome.bytes, after), after),
        ..arrival.clone()
    }
}

/// Whether the row for answers is there and is this connection's own. An evicted one comes back with the first packet
/// of another second; that of a connection that is over may have gone to a new one ([`super::lost_in_time`]), or meet the
/// SYN's answer of a direct connection, which it must leave alone.
fn answerable(memory: &Memory, answer: &Arrival, (before, after): (&Decoded, &Decoded)) -> bool {
    let (Some(asked), Some((source_port, destination_port))) = (before.ports, after.ports) else {
        return false;
    };
    let hook = if answer.program.is_ingress() {
        Hook::Ingress
    } else {
        Hook::Egress
    };
    let key = FlowKey {
        source: after.destination,
        destination: after.source,
        source_port: destination_port,
        destination_port: source_port,
        protocol: after.protocol,
        hook: hook.code(),
        reserved: 0,
    };
    let flags = answer.bytes.get(after.l4 + 13).copied().unwrap_or(0);
    let opens = after.protocol == 6 && flags & (SYN | ACK | RST) == SYN | ACK && hook == Hook::Egress;
    memory.row(&key).is_some_and(|row| {
        !(opens && is_over(memory, &row))
            && (row.client, row.client_port) == (before.source, asked.0)
            && (row.frontend, row.frontend_port) == (before.destination, asked.1)
    })
}

/// The packet after so many hops: the checksum of IPv4's header is as right as it was.
fn counted_down(mut bytes: Vec<u8>, packet: &Decoded, hops: u8) -> Vec<u8> {
    let at = packet.l3 + if packet.family == 4 { 8 } else { 7 };
    if let Some(field) = bytes.get_mut(at) {
        *field = field.wrapping_sub(hops);
    }
    // The time to live is the high byte of its word, and the checksum the complement of the sum.
    if packet.family == 4
        && let Some(field) = bytes.get_mut(packet.l3 + 10..packet.l3 + 12)
    {
        let sum = ones_sum(&[field, &[hops, 0]]);
        field.copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// The packet with source and destination exchanged; its checksums stay right.
fn turned(bytes: &[u8], packet: &Decoded) -> Vec<u8> {
    let mut turned = bytes.to_vec();
    let (at, size) = if packet.family == 4 {
        (packet.l3 + 12, 4)
    } else {
        (packet.l3 + 8, 16)
    };
    exchange(&mut turned, at, size);
    if packet.ports.is_some() {
        exchange(&mut turned, packet.l4, 2);
    }
    as_right_as(bytes, turned, packet)
}

/// An answer in mid-stream: one to a SYN may be another connection's, which ends the flow (`path::answers_another`).
fn without_syn(mut bytes: Vec<u8>, packet: &Decoded) -> Vec<u8> {
    if packet.protocol == 6
        && packet.ports.is_some()
        && let Some(flags) = bytes.get_mut(packet.l4 + 13)
    {
        *flags &= !2;
    }
    let before = bytes.clone();
    if packet.protocol == 132
        && packet.ports.is_some()
        && let Some(chunk) = bytes.get_mut(packet.l4 + 12)
        && matches!(*chunk, INIT | INIT_ACK)
    {
        *chunk = DATA;
    }
    as_right_as(&before, bytes, packet)
}

/// What was changed in an SCTP packet leaves its checksum as right, or as wrong, as it was.
fn as_right_as(before: &[u8], mut bytes: Vec<u8>, packet: &Decoded) -> Vec<u8> {
    let field = packet.l4 + 8..packet.l4 + 12;
    let whole = |bytes: &[u8]| {
        let mut body = bytes.get(packet.l4..).unwrap_or_default().to_vec();
        body.resize(packet.end.saturating_sub(packet.l4), 0);
        if let Some(field) = body.get_mut(8..12) {
            field.fill(0);
        }
        crc32c(&body).to_le_bytes()
    };
    let change: Vec<_> = whole(before)
        .into_iter()
        .zip(whole(&bytes))
        .map(|(a, b)| a ^ b)
        .collect();
    if packet.protocol == 132
        && packet.ports.is_some()
        && let Some(field) = bytes.get_mut(field)
        && *field != [0; 4]
    {
        for (byte, change) in field.iter_mut().zip(change) {
            *byte ^= change;
        }
    }
    bytes
}

fn exchange(bytes: &mut [u8], at: usize, size: usize) {
    if let Some((first, second)) = bytes
        .get_mut(at..at + 2 * size)
        .and_then(|both| both.split_at_mut_checked(size))
    {
        first.swap_with_slice(second);
    }
}

/// Zero and 0xffff are the same number in ones' complement; both stand for it here.
fn without_zero_sums(bytes: &[u8], packet: &Decoded) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let transport = packet.l4 + if packet.protocol == 6 { 16 } else { 6 };
    for at in [packet.l3 + 10, transport] {
        // At l3 + 10, IPv6 has part of an address; only IPv4 has a checksum there.
        if at != transport && packet.family == 6 {
            continue;
        }
        if let Some(field) = bytes.get_mut(at..at + 2)
            && *field == [0xff, 0xff]
        {
            field.fill(0);
        }
    }
    bytes
}
