//! A known flow: its two keys, its states, its time-outs.
//!
//! ```text
//!        SYN         SYN+ACK, client's ACK               FIN                          the other FIN
//! (none) ───▶ New ───────────────────────▶ Established ─────▶ Client-/BackendClosed ───────────────▶ Closed
//!              ╰──────────────────────────────┴────── RST ──────┴──▶ Reset
//! ```
//!
//! What is said of TCP is true of SCTP, whose chunks are read as TCP's flags (`sctp.rs`).
//!
//! Each side's ends are bits of their own ([`FlowBit`]), set by that side's packets only. A reset side that goes on
//! sending was not reset: somebody else's RST cannot end a connection whose ends ignore it (RFC 5961, 3.2).

use proxy_common::{Direction, Flow, FlowBit, FlowKey, FlowState, Hook, Nat};

use crate::parse::{ACK, FIN, RST, SCTP, SYN, UDP};

/// Seconds after which the ports of a fragmented datagram are another datagram's: Linux reassembles for as long
/// (`net.ipv4.ipfrag_time`).
pub const FRAGMENT_TIMEOUT: u32 = 30;

/// Seconds without an answer after which a client is told that its backend is gone, once that has left its service: four
/// retransmissions of Linux, and longer than a pod needs that is paused or moved.
pub const GONE_AFTER: u32 = 5;

/// Seconds after which a silent flow is forgotten.
///
/// Those of the kernel's own connection tracking, with the established time-out that kube-proxy sets (24 h), except
/// that a closed flow leaves after 10 s: its only purpose then is to answer late packets. A reset one stays for 120 s,
/// because sequence numbers are not tracked, and a RST that its receiver ignored must not cost an idle connection its
/// flow before either side has had time to send a keepalive and so take it back. A flood of RSTs does not fill the
/// table: what is idle longest is evicted first.
///
/// SCTP: an association that is idle sends a HEARTBEAT every 30 s or so, hence 210 s. The kernel's 3 s for a handshake and for
/// an end are shorter than the first retransmission of an INIT (3 s, then doubled), which would go to another backend, and of a
/// SHUTDOWN: so a handshake has TCP's 60 s, and an end the 300 s after which its sender gives up (RFC 9260, 9.2).
#[inline(always)]
pub const fn timeout(protocol: u8, state: u8) -> u32 {
    let state = FlowState::of(state);
    if protocol == UDP {
        return if matches!(state, FlowState::Established) {
            180
        } else {
            30
        };
    }
    match state {
        FlowState::Established if protocol == SCTP => 210,
        FlowState::ClientClosed | FlowState::BackendClosed if protocol == SCTP => 300,
        FlowState::Established => 86_400,
        FlowState::ClientClosed | FlowState::BackendClosed => 3_600,
        FlowState::Reset => 120,
        FlowState::New => 60,
        FlowState::Closed => 10,
    }
}

/// Whether a row has been silent for longer than its state allows.
#[inline(always)]
pub const fn expired(flow: &Flow, now: u32) -> bool {
    // Saturating: another CPU may have seen a later second than this one.
    now.saturating_sub(flow.last_seen) > timeout(flow.protocol, flow.state)
}

/// Whether another connection may take a row's place.
#[inline(always)]
pub const fn replaceable(flow: &Flow, now: u32) -> bool {
    expired(flow, now)
        || (flow.protocol != UDP && matches!(FlowState::of(flow.state), FlowState::Closed | FlowState::Reset))
}

/// Whether a packet from the backend answers a SYN that this flow did not send: the flow is over, and its client has
/// opened a direct connection to the same backend, from the same port.
///
/// Direct packets are not looked at, so their answers are the first to tell.
#[inline(always)]
pub const fn is_of_another(flow: &Flow, tcp_flags: u8, now: u32) -> bool {
    flow.protocol != UDP
        && flow.direction == Direction::FromBackend.code()
        && tcp_flags & (SYN | ACK | RST) == SYN | ACK
        && replaceable(flow, now)
}

/// What a packet changes in its flow's state: [`FlowBit`]s to set, and others to take back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// Bits that were not set.
    pub set: u8,
    /// Bits that were set.
    pub clear: u8,
}

impl Change {
    /// Whether nothing changes.
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.set | self.clear == 0
    }

    /// The state afterwards.
    #[inline(always)]
    pub const fn of(self, state: u8) -> u8 {
        (state | self.set) & !self.clear
    }
}

/// What a packet changes.
#[inline(always)]
pub const fn change(flow: &Flow, from_backend: bool, tcp_flags: u8) -> Change {
    let wanted = if flow.protocol == UDP {
        Change {
            set: if from_backend {
                FlowBit::Established.code()
            } else {
                0
            },
            clear: 0,
        }
    } else {
        change_tcp(flow.state, from_backend, tcp_flags)
    };
    Change {
        set: wanted.set & !flow.state,
        clear: wanted.clear & flow.state,
    }
}

/// What answers a SYN.
const BOTH: u8 = SYN | ACK;

#[inline(always)]
const fn change_tcp(state: u8, from_backend: bool, tcp_flags: u8) -> Change {
    let (fin, reset, silence) = if from_backend {
        (
            FlowBit::BackendFin.code(),
            FlowBit::BackendReset.code(),
            FlowBit::Unanswered.code(),
        )
    } else {
        (FlowBit::ClientFin.code(), FlowBit::ClientReset.code(), 0)
    };
    if tcp_flags & RST != 0 {
        return Change {
            set: reset,
            clear: silence,
        };
    }
    let mut change = Change {
        set: if tcp_flags & FIN != 0 { fin } else { 0 },
        clear: silence,
    };
    match tcp_flags & (SYN | ACK) {
        ACK => {
            // In mid-stream: whoever sends this has not ended the connection by RST.
            change.clear |= reset;
            // The client's first packet after the handshake: only then is the connection worth keeping for long. Before the
            // backend's answer it is nothing that a client would send, and anybody can send it.
            if !from_backend && state & FlowBit::Answered.code() != 0 {
                change.set |= FlowBit::Established.code();
            }
        }
        BOTH if from_backend => change.set |= FlowBit::Answered.code(),
        _ => {}
    }
    change
}

/// The keys of a flow's two rows: that of packets to the service, and that of packets from the backend.
pub fn keys(flow: &Flow) -> (FlowKey, FlowKey) {
    let mut to_service = FlowKey::default();
    let mut from_backend = FlowKey::default();
    write_key(flow, Direction::ToService, &mut to_service);
    write_key(flow, Direction::FromBackend, &mut from_backend);
    (to_service, from_backend)
}

/// Writes the key of one of a flow's rows.
#[inline(always)]
pub fn write_key(flow: &Flow, direction: Direction, key: &mut FlowKey) {
    key.protocol = flow.protocol;
    key.reserved = 0;
    match direction {
        Direction::ToService => {
            key.source = flow.client;
            key.destination = flow.frontend;
            key.source_port = flow.client_port;
            key.destination_port = flow.frontend_port;
            key.hook = Hook::Ingress.code();
        }
        Direction::FromBackend => {
            key.source = flow.backend;
            key.destination = flow.source;
            key.source_port = flow.backend_port;
            key.destination_port = flow.source_port;
            // Answers to an address of this node must be met before the stack takes them for its own.
            key.hook = if flow.nat == Nat::Source.code() {
                Hook::Ingress.code()
            } else {
                Hook::Egress.code()
            };
        }
    }
}

/// Whether two rows are about the same client and frontend.
#[inline(always)]
pub fn same_connection(a: &Flow, b: &Flow) -> bool {
    a.client_port == b.client_port
        && a.frontend_port == b.frontend_port
        && a.client == b.client
        && a.frontend == b.frontend
}

/// Whether two rows are halves of the same connection.
#[inline(always)]
pub fn same_translation(a: &Flow, b: &Flow) -> bool {
    a.source_port == b.source_port
        && a.backend_port == b.backend_port
        && a.source == b.source
        && a.backend == b.backend
        && same_connection(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::TCP;

    /// A TCP flow that has seen these packets: whether each was the backend's, and its flags.
    fn after(packets: &[(bool, u8)]) -> Flow {
        let mut flow = Flow {
            protocol: TCP,
            ..Flow::default()
        };
        for (from_backend, flags) in packets {
            flow.state = change(&flow, *from_backend, *flags).of(flow.state);
        }
        flow
    }

    fn state(packets: &[(bool, u8)]) -> FlowState {
        FlowState::of(after(packets).state)
    }

    const ESTABLISHED: [(bool, u8); 3] = [(false, SYN), (true, SYN | ACK), (false, ACK)];

    #[test]
    fn a_connection_lives_through_its_states() {
        let packets = [
            ((false, SYN), FlowState::New),
            ((true, SYN | ACK), FlowState::New),
            ((true, ACK), FlowState::New),
            ((false, ACK), FlowState::Established),
            ((true, ACK), FlowState::Established),
            ((true, ACK | FIN), FlowState::BackendClosed),
            ((false, ACK), FlowState::BackendClosed),
            ((false, ACK | FIN), FlowState::Closed),
            ((true, ACK), FlowState::Closed),
        ];
        let seen = packets.map(|(packet, _)| packet);
        for (index, (_, wanted)) in packets.iter().enumerate() {
            assert_eq!(state(&seen[..=index]), *wanted, "after {index}");
        }
    }

    #[test]
    fn p9_only_an_answered_handshake_is_established() {
        for packets in [
            &[(false, SYN), (false, ACK)][..],
            &[(false, SYN), (true, ACK), (false, ACK)],
            &[(false, SYN), (true, SYN), (false, ACK)],
            &[(false, SYN), (false, SYN | ACK), (false, ACK)],
            &[(false, SYN), (true, SYN | ACK), (false, SYN)],
            &[(false, SYN), (true, SYN | ACK), (true, ACK)],
        ] {
            assert_eq!(state(packets), FlowState::New, "{packets:?}");
        }
        // In whatever order a network brings them, and however often.
        let late = [(false, ACK), (true, SYN | ACK), (true, SYN | ACK), (false, ACK)];
        assert_eq!(state(&late), FlowState::Established);
    }

    #[test]
    fn p11_only_the_backend_ends_its_silence() {
        let mut flow = after(&ESTABLISHED);
        flow.state |= FlowBit::Unanswered.code();
        for flags in [ACK, ACK | FIN, RST, SYN] {
            assert_eq!(change(&flow, false, flags).clear & FlowBit::Unanswered.code(), 0);
            assert_ne!(change(&flow, true, flags).clear & FlowBit::Unanswered.code(), 0);
        }
    }

    #[test]
    fn either_side_may_close_first() {
        for backend_first in [true, false] {
            let half = after(&[(backend_first, FIN | ACK)]);
            assert!(
                change(&half, backend_first, FIN | ACK).is_none(),
                "a retransmitted FIN closes nothing more"
            );
            let last = change(&half, !backend_first, FIN | ACK);
            assert_eq!(FlowState::of(last.of(half.state)), FlowState::Closed);
        }
    }

    /// Two CPUs that look at the same row and then write: what they write must not depend on what they saw.
    #[test]
    fn ends_of_both_sides_at_once_are_both_kept() {
        let flow = after(&ESTABLISHED);
        let (client, backend) = (change(&flow, false, FIN | ACK), change(&flow, true, FIN | ACK));
        assert_eq!(
            FlowState::of(backend.of(client.of(flow.state))),
            FlowState::Closed
        );
        assert_eq!(
            backend.of(client.of(flow.state)),
            client.of(backend.of(flow.state))
        );
    }

    #[test]
    fn the_key_of_answers_is_met_where_answers_come() {
        let mut flow = Flow {
            source_port: 1,
            backend_port: 2,
            client_port: 3,
            frontend_port: 4,
            ..Flow::default()
        };
        for (nat, hook) in [
            (Nat::Destination, Hook::Egress),
            (Nat::SourcePort, Hook::Egress),
            (Nat::Source, Hook::Ingress),
        ] {
            flow.nat = nat.code();
            let (to_service, from_backend) = keys(&flow);
            assert_eq!((to_service.source_port, to_service.destination_port), (3, 4));
            assert_eq!((from_backend.source_port, from_backend.destination_port), (2, 1));
            assert_eq!(to_service.hook, Hook::Ingress.code());
            assert_eq!(from_backend.hook, hook.code(), "{nat:?}");
        }
    }

    #[test]
    fn a_reset_is_taken_back_by_its_own_side_only() {
        for from_backend in [false, true] {
            let reset = [ESTABLISHED.as_slice(), &[(from_backend, RST)]].concat();
            assert_eq!(state(&reset), FlowState::Reset);
            assert!(replaceable(&after(&reset), 0), "a SYN begins another connection");
            for (from_backend, flags, wanted) in [
                (from_backend, ACK, FlowState::Established),
                (!from_backend, ACK, FlowState::Reset),
                (from_backend, RST | ACK, FlowState::Reset),
                (from_backend, SYN, FlowState::Reset),
                (from_backend, SYN | ACK, FlowState::Reset),
                (from_backend, FIN, FlowState::Reset),
            ] {
                let packets = [&reset[..], &[(from_backend, flags)]].concat();
                assert_eq!(state(&packets), wanted, "{packets:?}");
            }
        }
    }

    #[test]
    fn an_idle_connection_outlives_a_reset_that_was_ignored() {
        let reset = after(&[ESTABLISHED.as_slice(), &[(false, RST)]].concat());
        assert!(!expired(&reset, 120));
        assert!(expired(&reset, 121));
        let closed = after(&[ESTABLISHED.as_slice(), &[(false, FIN | ACK), (true, FIN | ACK)]].concat());
        assert!(!expired(&closed, 10));
        assert!(expired(&closed, 11));
    }

    #[test]
    fn udp_is_established_by_the_first_answer() {
        let flow = Flow {
            protocol: 17,
            ..Flow::default()
        };
        assert!(change(&flow, false, 0).is_none());
        assert_eq!(change(&flow, true, 0).of(0), FlowBit::Established.code());
    }

    #[test]
    fn an_answer_to_a_syn_after_the_end_is_of_another_connection() {
        let fins = [(false, FIN | ACK), (true, FIN | ACK)];
        for (packets, flags, another) in [
            (&ESTABLISHED[..1], SYN | ACK, false),
            (&ESTABLISHED, SYN | ACK, false),
            (&fins, SYN | ACK, true),
            (&fins, ACK, false),
            (&fins, ACK | FIN, false),
            (&fins, ACK | RST, false),
            (&[(false, SYN), (true, RST | ACK)], SYN | ACK, true),
        ] {
            let flow = Flow {
                direction: Direction::FromBackend.code(),
                ..after(packets)
            };
            assert_eq!(is_of_another(&flow, flags, 0), another, "{packets:?} {flags:#x}");
        }
    }

    #[test]
    fn a_clock_that_lags_on_another_cpu_expires_nothing() {
        let flow = Flow {
            last_seen: 100,
            protocol: 17,
            ..Flow::default()
        };
        assert!(!expired(&flow, 99));
        assert!(!expired(&flow, 130));
        assert!(expired(&flow, 131));
    }
}
