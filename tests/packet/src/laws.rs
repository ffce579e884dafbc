//! What must hold for every packet, whatever it is. Found out from the bytes by `decode.rs`, not by the datapath.

use anyhow::{Context, Result, bail, ensure};
use proxy_common::{
    AddressKind, Backend, Flow, FlowBit, FlowKey, FrontendKind, Hook, Ip, Reason, Scope, Service, ServiceKey,
    TrafficPolicy,
};
use proxy_datapath::{Scratch, Verdict};

use crate::craft::{ACK, RST, SYN};
use crate::decode::{Decoded, decode, editable, sums};
use crate::memory::{Frozen, Memory, Touched};
use crate::user::{self, Arrival, Outcome, Program};

/// Tests every law for one packet. `before` is the number of flow rows before it.
pub fn hold(
    memory: &Memory,
    arrival: &Arrival,
    outcome: &Outcome,
    (touched, before): (&Touched, usize),
) -> Result<()> {
    let after = memory.flows.borrow().len();
    bounded_rows(outcome, before, after)?;
    turns(outcome, touched)?;
    one_connection(touched)?;
    lost_in_time(memory, arrival, touched)?;
    match outcome.verdict {
        Verdict::Ignore | Verdict::Pass(_) => {
            ensure!(
                outcome.bytes == arrival.bytes,
                "a packet that is let through has changed"
            );
            Ok(())
        }
        Verdict::Drop(Reason::DropRewrite) => {
            bail!("the parser let something through that cannot be rewritten")
        }
        Verdict::Drop(_) => Ok(()),
        Verdict::Reply(reason) => answered(arrival, outcome, reason),
        Verdict::Translate(reason) | Verdict::Redirect(reason) => {
            translated(memory, arrival, outcome, reason)
        }
    }
}

/// A packet makes two rows at most, and none unless it begins a flow or heals one.
fn bounded_rows(outcome: &Outcome, before: usize, after: usize) -> Result<()> {
    let most = match outcome.verdict.reason() {
        Some(Reason::NewFlow | Reason::RejectTooBig | Reason::DropNoRoute | Reason::DropUnanswerable) => 2,
        Some(Reason::Forward | Reason::Reverse) => 1,
        _ => 0,
    };
    ensure!(after <= before + most, "{before} rows became {after}");
    Ok(())
}

/// Only a new flow takes a turn and counts a backend; a retransmission does not.
fn turns(outcome: &Outcome, touched: &Touched) -> Result<()> {
    let (turns, chosen) = (touched.cursors.len(), touched.chosen.len());
    match outcome.verdict.reason() {
        Some(Reason::NewFlow) => ensure!(
            (turns, chosen) == (1, 1),
            "a new flow took {turns} turns, chose {chosen}"
        ),
        // The way is looked at when the flow is made.
        Some(Reason::RejectTooBig | Reason::DropNoRoute | Reason::DropUnanswerable) => {
            ensure!(turns <= 1 && chosen <= 1, "several turns");
        }
        Some(Reason::DropSnatPorts | Reason::DropFlowTable | Reason::DropBackendMissing) => {
            ensure!(turns <= 1 && chosen == 0, "a flow that failed was counted");
        }
        _ => ensure!(
            (turns, chosen) == (0, 0),
            "{turns} turns taken and {chosen} chosen without a new flow"
        ),
    }
    Ok(())
}

/// A packet refreshes the rows of its own connection only, even if another one has taken the place of a row.
fn one_connection(touched: &Touched) -> Result<()> {
    for pair in touched.refreshed.windows(2) {
        if let [first, second] = pair {
            let ends = |flow: &Flow| {
                let places = [flow.client, flow.frontend, flow.source, flow.backend];
                (
                    places,
                    [
                        flow.client_port,
                        flow.frontend_port,
                        flow.source_port,
                        flow.backend_port,
                    ],
                )
            };
            ensure!(
                ends(first) == ends(second),
                "a packet refreshed rows of two connections: {first:?}, {second:?}"
            );
        }
    }
    Ok(())
}

/// A connection loses a row only when it is over, or to a fresh start of itself.
fn lost_in_time(memory: &Memory, arrival: &Arrival, touched: &Touched) -> Result<()> {
    let packet = decode(&arrival.bytes, arrival.program.ethernet());
    let ends = packet.and_then(|packet| Some((packet.source, packet.destination, packet.ports?)));
    for old in &touched.lost {
        let itself = ends == Some((old.client, old.frontend, (old.client_port, old.frontend_port)));
        ensure!(
            is_over(memory, old) || itself,
            "a live connection lost its row: {old:?}"
        );
    }
    Ok(())
}

/// Whether a connection has been silent for longer than its state allows, or has ended.
fn is_over(memory: &Memory, row: &Flow) -> bool {
    let fins = row.state & (FlowBit::ClientFin.code() | FlowBit::BackendFin.code());
    let resets = row.state & (FlowBit::ClientReset.code() | FlowBit::BackendReset.code());
    let established = row.state & FlowBit::Established.code() != 0;
    let limit = match (row.protocol, fins.count_ones(), established) {
        (6, 2, _) => return true,
        (6, ..) if resets != 0 => return true,
        (6, 1, _) => 3_600,
        (6, _, true) => 86_400,
        (6, _, false) => 60,
        (_, _, true) => 180,
        (_, _, false) => 30,
    };
    memory.now.get().saturating_sub(row.last_seen) > limit
}

/// A reply goes back to where the packet came from, whole and with right checksums.
fn answered(arrival: &Arrival, outcome: &Outcome, reason: Reason) -> Result<()> {
    let ethernet = arrival.program.ethernet();
    let asked = decode(&arrival.bytes, ethernet).context("a packet that cannot be read was answered")?;
    let reply = decode(&outcome.bytes, ethernet).context("a reply that cannot be read")?;
    ensure!(
        reply.source == asked.destination && reply.destination == asked.source,
        "a reply to somebody else"
    );
    ensure!(
        reply.end == outcome.bytes.len(),
        "a reply of {} bytes that says {}",
        outcome.bytes.len(),
        reply.end
    );
    let checked = sums(&outcome.bytes, &reply);
    ensure!(
        checked.header != Some(false) && checked.transport == Some(true),
        "a reply with {checked:?}"
    );
    ensure!(
        asked.inner.is_none() && !asked.later_fragment,
        "an error or a fragment was answered"
    );
    let flags = |bytes: &[u8], packet: &Decoded| bytes.get(packet.l4 + 13).copied().unwrap_or(0);
    if asked.protocol == 6 {
        ensure!(flags(&arrival.bytes, &asked) & RST == 0, "a reset was answered");
    }
    if reply.protocol == 6 {
        ensure!(
            flags(&outcome.bytes, &reply) & RST != 0,
            "a TCP reply that is no reset"
        );
        let (Some((from, to)), Some((source, destination))) = (asked.ports, reply.ports) else {
            bail!("a reset without ports")
        };
        ensure!(
            (source, destination) == (to, from),
            "a reset of another connection"
        );
    } else {
        let quoted = reply.inner.as_deref().context("an ICMP reply without a quote")?;
        ensure!(
            (quoted.source, quoted.destination) == (asked.source, asked.destination),
            "a quote of another packet"
        );
        ensure!(quoted.ports == asked.ports, "a quote of another connection");
    }
    ensure!(
        asked.protocol == 6 || reply.protocol != 6,
        "a reset for {}: {reason:?}",
        asked.protocol
    );
    if ethernet {
        let (asked, reply) = (arrival.bytes.get(..12), outcome.bytes.get(..12));
        let swapped = asked.map(|link| [link.get(6..).unwrap_or(&[]), link.get(..6).unwrap_or(&[])].concat());
        ensure!(swapped.as_deref() == reply, "a reply to another station");
    }
    Ok(())
}

/// A translation changes addresses, ports and checksums, and nothing else; checksums stay as right as they were.
fn translated(memory: &Memory, arrival: &Arrival, outcome: &Outcome, reason: Reason) -> Result<()> {
    let ethernet = arrival.program.ethernet();
    let before = decode(&arrival.bytes, ethernet).context("a packet that cannot be read was translated")?;
    let after = decode(&outcome.bytes, ethernet).context("the translation cannot be read")?;
    same_but_for(&arrival.bytes, &outcome.bytes, &before)?;
    let (was, is) = (sums(&arrival.bytes, &before), sums(&outcome.bytes, &after));
    ensure!(was == is, "checksums: {was:?} became {is:?}");
    if let (Some(was), Some(is)) = (&before.inner, &after.inner) {
        let (was, is) = (sums(&arrival.bytes, was).header, sums(&outcome.bytes, is).header);
        ensure!(was == is, "checksum of the quoted header: {was:?} became {is:?}");
    }
    if reason == Reason::NewFlow {
        listed(memory, arrival, &before, &after)?;
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

/// The backends that a packet may be sent to.
fn candidates(memory: &Memory, arrival: &Arrival, packet: &Decoded) -> Option<Vec<Backend>> {
    let node = memory.addresses.get(&packet.destination)?.kind == AddressKind::Node.code();
    let (_, port) = packet.ports?;
    let (address, scope) = match (node, packet.family) {
        (false, _) => (packet.destination, Scope::Address),
        (true, 4) => (Ip::UNSPECIFIED, Scope::NodePortV4),
        (true, _) => (Ip::UNSPECIFIED, Scope::NodePortV6),
    };
    let key = ServiceKey {
        address,
        port,
        protocol: packet.protocol,
        scope: scope.code(),
    };
    let service: &Service = memory.services.get(&key)?;
    let inside = !arrival.place().uplink && service.kind == FrontendKind::NodePort.code();
    let local = service.policy == TrafficPolicy::Local.code() && !inside;
    let range = if local { service.local } else { service.cluster };
    Some(
        (range.base..range.base + range.count)
            .filter_map(|slot| memory.backends.get(&slot).copied())
            .collect(),
    )
}

fn listed(memory: &Memory, arrival: &Arrival, before: &Decoded, after: &Decoded) -> Result<()> {
    let listed = candidates(memory, arrival, before).context("a new flow to no service")?;
    let chosen = listed.iter().find(|backend| {
        backend.address == after.destination && after.ports.is_some_and(|(_, port)| port == backend.port)
    });
    let chosen = chosen.with_context(|| format!("sent to {after:?}, which is not in {listed:?}"))?;
    let hidden = after.source != before.source;
    let away = arrival.place().uplink && chosen.local == 0;
    ensure!(
        hidden == (away || chosen.address == before.source),
        "source address changed: {hidden}"
    );
    Ok(())
}

/// The answer to a translated packet is translated back: from whom the client asked, to whom it asked as.
fn there_and_back(
    memory: &Memory,
    arrival: &Arrival,
    outcome: &Outcome,
    (before, after): (&Decoded, &Decoded),
) -> Result<()> {
    let program = match (before.source != after.source, arrival.program.ethernet()) {
        (true, true) => Program::UplinkIngress,
        (true, false) => Program::UplinkL3Ingress,
        (false, true) if arrival.program == Program::PodIngress => Program::PodEgress,
        (false, true) => Program::UplinkEgress,
        (false, false) => Program::UplinkL3Egress,
    };
    let answer = Arrival {
        program,
        bytes: without_syn(turned(&outcome.bytes, after), after),
        ..arrival.clone()
    };
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
        Verdict::Reply(Reason::RejectTooBig)
        | Verdict::Drop(Reason::DropNoRoute | Reason::DropUnanswerable) => return Ok(()),
        other => bail!("the answer at {program:?} is not translated back: {other:?}"),
    }
    let wanted = without_syn(turned(&arrival.bytes, before), before);
    ensure!(
        without_zero_sums(&back.bytes, before) == without_zero_sums(&wanted, before),
        "there and back is not where it began:\n  {:02x?}\n  {:02x?}",
        back.bytes,
        wanted
    );
    Ok(())
}

/// Whether the row for answers is there and is this connection's own. An evicted one comes back with the first packet
/// of another second; that of a connection that is over may have gone to a new one ([`lost_in_time`]), or meet the
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
    memory.flows.borrow().get(&key).is_some_and(|row| {
        !(opens && is_over(memory, row))
            && (row.client, row.client_port) == (before.source, asked.0)
            && (row.frontend, row.frontend_port) == (before.destination, asked.1)
    })
}

/// The packet with source and destination exchanged; its checksums stay right.
pub fn turned(bytes: &[u8], packet: &Decoded) -> Vec<u8> {
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
    turned
}

/// An answer in mid-stream: one to a SYN may be another connection's, which ends the flow (`path::answers_another`).
fn without_syn(mut bytes: Vec<u8>, packet: &Decoded) -> Vec<u8> {
    if packet.protocol == 6
        && packet.ports.is_some()
        && let Some(flags) = bytes.get_mut(packet.l4 + 13)
    {
        *flags &= !2;
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
