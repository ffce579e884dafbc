//! What must hold for every packet, whatever it is. Found out from the bytes by `decode.rs`, not by the datapath.

mod affinity;
mod translation;

use anyhow::{Context, Result, bail, ensure};
use proxy_common::{Direction, Flow, FlowBit, Reason};
use proxy_datapath::{Verdict, flow};

use crate::craft::{ABORT, RST, SHUTDOWN_COMPLETE};
use crate::decode::{Decoded, decode, sums};
use crate::memory::{Memory, Touched};
use crate::user::{Arrival, Outcome};

use translation::translated;

/// Tests every law for one packet. `before` is the number of flow rows before it.
pub fn hold(
    memory: &Memory,
    arrival: &Arrival,
    outcome: &Outcome,
    (touched, before): (&Touched, usize),
) -> Result<()> {
    let after = memory.rows().len();
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
            translated(memory, arrival, (outcome, touched), reason)
        }
    }
}

/// A packet makes two rows at most, and none unless it begins a flow or heals one.
fn bounded_rows(outcome: &Outcome, before: usize, after: usize) -> Result<()> {
    let most = match outcome.verdict.reason() {
        Some(
            Reason::NewFlow
            | Reason::RejectTooBig
            | Reason::DropNoRoute
            | Reason::DropUnanswerable
            | Reason::DropSctpFragment,
        ) => 2,
        Some(Reason::Forward | Reason::Reverse | Reason::RejectHopLimit) => 1,
        _ => 0,
    };
    ensure!(after <= before + most, "{before} rows became {after}");
    Ok(())
}

/// Only a new flow takes a turn and counts a backend; a retransmission does not.
fn turns(outcome: &Outcome, touched: &Touched) -> Result<()> {
    let (turns, chosen) = (touched.cursors.len(), touched.chosen.len());
    match outcome.verdict.reason() {
        // Who sticks to a backend takes no turn: `affinity.rs` says who that is.
        Some(Reason::NewFlow) => ensure!(
            chosen == 1 && (turns == 1 || turns == 0 && !touched.affinity.is_empty()),
            "a new flow took {turns} turns, chose {chosen}"
        ),
        // A turn, but neither row nor count: `bounded_rows` says the same.
        Some(Reason::RejectHopLimit) => {
            ensure!(turns <= 1 && chosen == 0, "a packet without a flow was counted");
        }
        // The way is looked at when the flow is made.
        Some(
            Reason::RejectTooBig | Reason::DropNoRoute | Reason::DropUnanswerable | Reason::DropSctpFragment,
        ) => {
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

/// A connection loses a row only when it is over, or to a fresh start of itself, or because `FLOWS`, which is asked first, has one of it.
fn lost_in_time(memory: &Memory, arrival: &Arrival, touched: &Touched) -> Result<()> {
    let packet = decode(&arrival.bytes, arrival.program.ethernet());
    let ends = packet.and_then(|packet| Some((packet.source, packet.destination, packet.ports?)));
    for old in &touched.lost {
        let itself = ends == Some((old.client, old.frontend, (old.client_port, old.frontend_port)));
        ensure!(
            is_over(memory, old) || itself || is_shadowed(memory, old),
            "a live connection lost its row: {old:?}"
        );
    }
    Ok(())
}

/// Whether no packet meets a half-open row, as `FLOWS` has one of its connection: the same that has moved, or that of an
/// earlier turn, which an answer has brought back after it was evicted.
fn is_shadowed(memory: &Memory, old: &Flow) -> bool {
    let (to_service, from_backend) = flow::keys(old);
    let key = if old.direction == Direction::ToService.code() {
        to_service
    } else {
        from_backend
    };
    let flows = memory.flows.borrow();
    old.state & FlowBit::Established.code() == 0
        && flows.get(&key).is_some_and(|new| flow::same_connection(new, old))
}

/// Whether a connection has been silent for longer than its state allows, or has ended.
fn is_over(memory: &Memory, row: &Flow) -> bool {
    let fins = row.state & (FlowBit::ClientFin.code() | FlowBit::BackendFin.code());
    let resets = row.state & (FlowBit::ClientReset.code() | FlowBit::BackendReset.code());
    let established = row.state & FlowBit::Established.code() != 0;
    let limit = match (row.protocol, fins.count_ones(), established) {
        (6 | 132, 2, _) => return true,
        (6 | 132, ..) if resets != 0 => return true,
        (6, 1, _) => 3_600,
        (6, _, true) => 86_400,
        (132, 1, _) => 300,
        (132, _, true) => 210,
        (6 | 132, _, false) => 60,
        (_, _, true) => 180,
        (_, _, false) => 30,
    };
    memory.now.get().saturating_sub(row.last_seen) > limit
}

/// An ICMP reply is about the packet, and says that its hops are used up where that is so and is the reason.
fn quoted(outcome: &Outcome, (asked, reply): (&Decoded, &Decoded), reason: Reason) -> Result<()> {
    let far =
        outcome.bytes.get(reply.l4..reply.l4 + 2) == Some(if reply.family == 4 { &[11, 0] } else { &[3, 0] });
    ensure!(
        far == (reason == Reason::RejectHopLimit) && (!far || asked.hop_limit <= 1),
        "{reason:?} for a packet with {} hops left",
        asked.hop_limit
    );
    let quoted = reply.inner.as_deref().context("an ICMP reply without a quote")?;
    ensure!(
        (quoted.source, quoted.destination) == (asked.source, asked.destination),
        "a quote of another packet"
    );
    ensure!(quoted.ports == asked.ports, "a quote of another connection");
    Ok(())
}

/// An association is ended with the tag of the packet that has no place, and by nothing that asks for an answer.
fn aborted(arrival: &Arrival, outcome: &Outcome, (asked, reply): (&Decoded, &Decoded)) -> Result<()> {
    let there = arrival.bytes.get(asked.l4..).context("no header")?;
    let back = outcome.bytes.get(reply.l4..).context("no header")?;
    // A chunk is none if the packet ends in its header, or the bytes that are there between type and flags.
    let chunk = match there.get(12..14) {
        Some([chunk, _]) if asked.end >= asked.l4 + 16 => Some(*chunk),
        _ => None,
    };
    ensure!(
        !matches!(chunk, Some(ABORT | SHUTDOWN_COMPLETE)),
        "an end was answered"
    );
    let kind = if chunk == Some(8) {
        SHUTDOWN_COMPLETE
    } else {
        ABORT
    };
    ensure!(back.get(12..) == Some(&[kind, 1, 0, 4]), "it says {back:02x?}");
    let tag = there.get(4..8);
    ensure!(tag == back.get(4..8) && tag != Some(&[0; 4]), "another tag");
    let turned = asked.ports.map(|(source, destination)| (destination, source));
    ensure!(reply.ports == turned, "an ABORT of another association");
    Ok(())
}

/// A reply has right checksums; one of SCTP none, if that of the packet was left to somebody else.
fn right_sums((arrival, asked): (&Arrival, &Decoded), (outcome, reply): (&Outcome, &Decoded)) -> Result<()> {
    let checked = sums(&outcome.bytes, reply);
    let left = reply.protocol == 132
        && checked.transport.is_none()
        && arrival.bytes.get(asked.l4 + 8..asked.l4 + 12) == Some(&[0; 4]);
    ensure!(
        checked.header != Some(false) && (checked.transport == Some(true) || left),
        "a reply with {checked:?}"
    );
    Ok(())
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
    right_sums((arrival, &asked), (outcome, &reply))?;
    ensure!(
        asked.inner.is_none() && !asked.later_fragment,
        "an error or a fragment was answered"
    );
    let flags = |bytes: &[u8], packet: &Decoded| bytes.get(packet.l4 + 13).copied().unwrap_or(0);
    if asked.protocol == 6 {
        ensure!(flags(&arrival.bytes, &asked) & RST == 0, "a reset was answered");
    }
    if reply.protocol == 6 {
        ensure!(reason != Reason::RejectHopLimit, "a reset for the way's fault");
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
    } else if reply.protocol == 132 {
        aborted(arrival, outcome, (&asked, &reply))?;
    } else {
        quoted(outcome, (&asked, &reply), reason)?;
    }
    let ends = matches!(reason, Reason::RejectUnknownFlow | Reason::RejectGoneBackend);
    ensure!(
        reply.protocol == asked.protocol || (!matches!(reply.protocol, 6 | 132) && !ends),
        "{} for {}: {reason:?}",
        reply.protocol,
        asked.protocol
    );
    if ethernet {
        let (asked, reply) = (arrival.bytes.get(..12), outcome.bytes.get(..12));
        let swapped = asked.map(|link| [link.get(6..).unwrap_or(&[]), link.get(..6).unwrap_or(&[])].concat());
        ensure!(swapped.as_deref() == reply, "a reply to another station");
    }
    Ok(())
}
