//! A known flow: its two keys, its states, its time-outs.
//!
//! ```text
//!            SYN                client's ACK            FIN                    the other FIN
//! (none) ──────────▶ New ──────────────────▶ Established ──▶ Client/BackendClosed ──▶ Closed
//!                     └──────────────────────── RST from either side ────────────────▶ ┘
//! ```

use proxy_common::{Direction, Flow, FlowKey, FlowState, Hook, Nat};

use crate::parse::{ACK, FIN, RST, SYN, TCP};

/// Seconds after which the ports of a fragmented datagram are another datagram's: Linux reassembles for as long
/// (`net.ipv4.ipfrag_time`).
pub const FRAGMENT_TIMEOUT: u32 = 30;

/// Seconds after which a silent flow is forgotten.
///
/// Those of the kernel's own connection tracking, with the established time-out that kube-proxy sets (24 h), except
/// that a closed flow leaves after 10 s: its only purpose then is to answer late packets.
#[inline(always)]
pub const fn timeout(protocol: u8, state: u8) -> u32 {
    if protocol == TCP {
        match FlowState::from_code(state) {
            Some(FlowState::Established) => 86_400,
            Some(FlowState::ClientClosed | FlowState::BackendClosed) => 3_600,
            Some(FlowState::New) => 60,
            Some(FlowState::Closed) | None => 10,
        }
    } else {
        match FlowState::from_code(state) {
            Some(FlowState::Established) => 180,
            _ => 30,
        }
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
    expired(flow, now) || (flow.protocol == TCP && flow.state == FlowState::Closed.code())
}

/// Whether a packet from the backend answers a SYN that this flow did not send: the flow is over, and its client has
/// opened a direct connection to the same backend, from the same port.
///
/// Direct packets are not looked at, so their answers are the first to tell.
#[inline(always)]
pub const fn is_of_another(flow: &Flow, tcp_flags: u8, now: u32) -> bool {
    flow.protocol == TCP
        && flow.direction == Direction::FromBackend.code()
        && tcp_flags & (SYN | ACK | RST) == SYN | ACK
        && replaceable(flow, now)
}

/// The state after a packet.
#[inline(always)]
pub const fn next_state(state: u8, protocol: u8, from_backend: bool, tcp_flags: u8) -> u8 {
    let Some(state) = FlowState::from_code(state) else {
        return FlowState::Closed.code();
    };
    let next = if protocol == TCP {
        next_tcp(state, from_backend, tcp_flags)
    } else if from_backend {
        FlowState::Established
    } else {
        state
    };
    next.code()
}

#[inline(always)]
const fn next_tcp(state: FlowState, from_backend: bool, tcp_flags: u8) -> FlowState {
    if tcp_flags & RST != 0 {
        return FlowState::Closed;
    }
    if tcp_flags & FIN != 0 {
        return match (state, from_backend) {
            (FlowState::Closed, _) | (FlowState::BackendClosed, false) | (FlowState::ClientClosed, true) => {
                FlowState::Closed
            }
            (_, false) => FlowState::ClientClosed,
            (_, true) => FlowState::BackendClosed,
        };
    }
    match state {
        // The client's first packet after the handshake: only then is the connection worth keeping for long.
        FlowState::New if !from_backend && tcp_flags & (SYN | ACK) == ACK => FlowState::Established,
        other => other,
    }
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

    #[test]
    fn a_connection_lives_through_its_states() {
        let mut state = FlowState::New.code();
        for (from_backend, flags, wanted) in [
            (false, SYN, FlowState::New),
            (true, SYN | ACK, FlowState::New),
            (false, ACK, FlowState::Established),
            (true, ACK, FlowState::Established),
            (true, ACK | FIN, FlowState::BackendClosed),
            (false, ACK, FlowState::BackendClosed),
            (false, ACK | FIN, FlowState::Closed),
            (true, ACK, FlowState::Closed),
        ] {
            state = next_state(state, TCP, from_backend, flags);
            assert_eq!(
                FlowState::from_code(state),
                Some(wanted),
                "after flags {flags:#x}"
            );
        }
    }

    #[test]
    fn either_side_may_close_first() {
        for client_first in [true, false] {
            let half = next_state(FlowState::Established.code(), TCP, !client_first, FIN | ACK);
            let again = next_state(half, TCP, !client_first, FIN | ACK);
            assert_eq!(again, half, "a retransmitted FIN closes nothing more");
            assert_eq!(
                next_state(half, TCP, client_first, FIN | ACK),
                FlowState::Closed.code()
            );
        }
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
    fn a_reset_closes_from_either_side() {
        for from_backend in [false, true] {
            assert_eq!(
                next_state(FlowState::Established.code(), TCP, from_backend, RST),
                FlowState::Closed.code()
            );
        }
    }

    #[test]
    fn udp_is_established_by_the_first_answer() {
        assert_eq!(next_state(0, 17, false, 0), FlowState::New.code());
        assert_eq!(next_state(0, 17, true, 0), FlowState::Established.code());
    }

    #[test]
    fn an_answer_to_a_syn_after_the_end_is_of_another_connection() {
        let mut flow = Flow {
            protocol: TCP,
            direction: Direction::FromBackend.code(),
            ..Flow::default()
        };
        for (state, flags, another) in [
            (FlowState::New, SYN | ACK, false),
            (FlowState::Established, SYN | ACK, false),
            (FlowState::Closed, SYN | ACK, true),
            (FlowState::Closed, ACK, false),
            (FlowState::Closed, ACK | FIN, false),
            (FlowState::Closed, ACK | RST, false),
        ] {
            flow.state = state.code();
            assert_eq!(is_of_another(&flow, flags, 0), another, "{state:?} {flags:#x}");
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
