//! What two CPUs do to one connection at the same time: in user space at a chosen moment, in the kernel as it comes.

use std::cell::RefCell;
use std::thread::available_parallelism;

use anyhow::{Context, Error, Result};
use proxy_common::{Flow, FlowKey, FlowState, Hook, Reason};
use proxy_datapath::tables::Room;
use proxy_datapath::{Scratch, Verdict, flow};
use weir_packet::craft::{ACK, Craft, Endpoint, FIN, SYN};
use weir_packet::decode::decode;
use weir_packet::kernel::Kernel;
use weir_packet::node::{self, Host, Port};
use weir_packet::pair::Pair;
use weir_packet::rival::{Moment, Rival};
use weir_packet::user::{self, Arrival, Program};

/// Rounds in the kernel: enough for a race of a hundred nanoseconds to be met many times.
const ROUNDS: u16 = 3_000;

/// The kernel, where it has two CPUs.
fn kernel() -> Result<Option<Kernel>> {
    if !weir_lab::require_root() {
        return Ok(None);
    }
    if available_parallelism()?.get() < 2 {
        println!("SKIP: there is one CPU only");
        return Ok(None);
    }
    let mut kernel = Kernel::load()?;
    kernel.reset(&node::rows(20_000))?;
    Ok(Some(kernel))
}

fn at_pod(program: Program, packet: &Craft) -> Arrival {
    Arrival::at(program, Port::Pod1, packet.bytes(true))
}

/// A Service with one backend, and the backend.
const FRONTEND: Endpoint = (Host::Vip(40).ip(false), 443);
const BACKEND: Endpoint = (Host::Remote(6).ip(false), 8443);

/// A connection of the first pod.
struct Connection {
    client: Endpoint,
}

impl Connection {
    const fn from_port(port: u16) -> Self {
        Self {
            client: (Host::Pod1.ip(false), port),
        }
    }

    fn request(&self, flags: u8) -> Arrival {
        at_pod(Program::PodIngress, &Craft::tcp(self.client, FRONTEND, flags))
    }

    fn answer(&self, flags: u8) -> Arrival {
        at_pod(Program::PodEgress, &Craft::tcp(BACKEND, self.client, flags))
    }

    /// The packets that open it.
    fn handshake(&self) -> [Arrival; 3] {
        [self.request(SYN), self.answer(SYN | ACK), self.request(ACK)]
    }

    /// The states of the two rows.
    fn states(&self, row: impl Fn(&FlowKey) -> Result<Option<Flow>>) -> Result<[FlowState; 2]> {
        let state = |source, destination, hook| {
            let row = row(&key(source, destination, hook))?.context("a row is gone")?;
            Ok::<_, Error>(FlowState::of(row.state))
        };
        Ok([
            state(self.client, FRONTEND, Hook::Ingress)?,
            state(BACKEND, self.client, Hook::Egress)?,
        ])
    }
}

const fn key(source: Endpoint, destination: Endpoint, hook: Hook) -> FlowKey {
    FlowKey {
        source: source.0,
        destination: destination.0,
        source_port: source.1,
        destination_port: destination.1,
        protocol: 6,
        hook: hook.code(),
        reserved: 0,
    }
}

fn row(pair: &Pair) -> impl Fn(&FlowKey) -> Result<Option<Flow>> {
    |key| Ok(pair.memory.row(key))
}

/// Both sides close at once: each CPU has seen an open connection, and none may write that back.
#[test]
fn fins_of_both_sides_close_the_connection() -> Result<()> {
    let connection = Connection::from_port(40_000);
    let fins = [connection.request(FIN | ACK), connection.answer(FIN | ACK)];
    for (first, second) in [(0, 1), (1, 0)] {
        let mut pair = Pair::new(None, &node::rows(20_000))?;
        for packet in connection.handshake() {
            pair.run(&packet)?;
        }
        let touch = |moment, _: &FlowKey| moment == Moment::Touch;
        Rival::packet(&pair.memory, touch, &fins[second]).run(&fins[first])?;
        assert_eq!(connection.states(row(&pair))?, [FlowState::Closed; 2]);
    }
    Ok(())
}

#[test]
fn fins_of_both_sides_close_the_connection_in_the_kernel() -> Result<()> {
    let Some(mut kernel) = kernel()? else {
        return Ok(());
    };
    for port in 20_000..20_000 + ROUNDS {
        let connection = Connection::from_port(port);
        for packet in connection.handshake() {
            kernel.run(&packet)?;
        }
        let states = connection.states(|key| kernel.row(key))?;
        assert_eq!(states, [FlowState::Established; 2], "port {port}");
        kernel.at_once([&connection.request(FIN | ACK), &connection.answer(FIN | ACK)])?;
        let states = connection.states(|key| kernel.row(key))?;
        assert_eq!(states, [FlowState::Closed; 2], "port {port}");
    }
    Ok(())
}

/// The first packet of a client outside to a node port.
fn from_outside(host: u8, node_port: u16) -> Arrival {
    from_outside_by(host, 50_000, node_port)
}

fn from_outside_by(host: u8, port: u16, node_port: u16) -> Arrival {
    let client = (Host::Outside(host).ip(false), port);
    let bytes = Craft::tcp(client, (Host::Node.ip(false), node_port), SYN).bytes(true);
    Arrival::at(Program::UplinkIngress, Port::Uplink, bytes)
}

/// A SYN and its retransmission, or two datagrams, may meet on two CPUs: they are one connection, at one backend.
#[test]
fn one_connection_that_two_cpus_begin_has_one_flow() -> Result<()> {
    for (node_port, turn) in [(30080, 0), (30080, 1), (30080, 2), (30443, 0)] {
        let syn = from_outside(7, node_port);
        let moments: [fn(Moment, &FlowKey) -> bool; 2] = [
            // Before this CPU reserves the tuple for answers, and before it writes the client's row.
            |moment, _| moment == Moment::Insert,
            |moment, key| moment == Moment::Insert && key.source_port == 50_000,
        ];
        for when in moments {
            let pair = Pair::new(None, &node::rows(20_000))?;
            pair.memory.cursors.borrow_mut().insert(0, turn);
            let outcome = Rival::packet(&pair.memory, when, &syn).run(&syn)?;
            assert_eq!(outcome.verdict.reason(), Some(Reason::Forward), "turn {turn}");
            let rows: Vec<_> = pair.memory.rows().iter().map(|(_, _, row)| *row).collect();
            let [first, second] = rows.as_slice() else {
                panic!("turn {turn}: {rows:?}");
            };
            assert!(flow::same_translation(first, second), "turn {turn}: {rows:?}");
            let sent = decode(&outcome.bytes, true).context("it cannot be read")?;
            assert_eq!(sent.destination, first.backend, "turn {turn}");
            let chosen: u64 = pair
                .memory
                .states
                .borrow()
                .values()
                .map(|state| state.chosen)
                .sum();
            assert_eq!(chosen, 1);
        }
    }
    Ok(())
}

/// The port of a connection that is over goes to one of two connections that want it; here there is no other.
#[test]
fn a_port_that_becomes_free_goes_to_one_of_two_cpus() -> Result<()> {
    let mut pair = Pair::new(None, &node::rows(1))?;
    pair.run(&from_outside(7, 30443))?;
    pair.age(61)?;
    let (packet, rival) = (from_outside(8, 30443), from_outside(9, 30443));
    let cpus = Rival::new(&pair.memory, |memory, moment, key| {
        // When this CPU has taken the old row away.
        let due = moment == Moment::Insert && memory.row(key).is_none();
        if due {
            user::run(memory, &rival, &mut Scratch::default());
        }
        due
    });
    assert_eq!(cpus.run(&packet)?.verdict, Verdict::Drop(Reason::DropSnatPorts));
    let answers = key(
        BACKEND,
        (Host::OverlayGate.ip(false), node::SNAT_FIRST),
        Hook::Ingress,
    );
    let row = row(&pair)(&answers)?.context("nobody has the port")?;
    assert_eq!(row.client, Host::Outside(9).ip(false));
    Ok(())
}

#[test]
fn one_connection_that_two_cpus_begin_has_one_flow_in_the_kernel() -> Result<()> {
    let Some(kernel) = kernel()? else {
        return Ok(());
    };
    // Three backends, one of them on another node.
    let cursor = 2 * node::service_id(0, false);
    let first = kernel.cursor(cursor)?;
    for port in 20_000..20_000 + ROUNDS {
        let syn = from_outside_by(7, port, 30080);
        kernel.at_once([&syn, &syn])?;
    }
    let turns = kernel.cursor(cursor)?.wrapping_sub(first);
    println!("{turns} turns for {ROUNDS} connections");
    let slab = node::slab(0, false);
    let states = (slab..slab + 3).map(|id| kernel.state(id));
    let states = states.collect::<Result<Vec<_>>>()?;
    let chosen: u64 = states.iter().map(|state| state.chosen).sum();
    assert_eq!(chosen, u64::from(ROUNDS));
    assert_eq!(kernel.flows(Room::HalfOpen)?.len(), 2 * usize::from(ROUNDS));
    Ok(())
}

/// The client's ACK and its first data meet on two CPUs, and both establish the connection: it has its two rows, once.
#[test]
fn p9_two_cpus_establish_a_connection_once() -> Result<()> {
    let connection = Connection::from_port(40_000);
    let [syn, answer, ack] = connection.handshake();
    let data = connection.request(ACK | FIN);
    let moments = RefCell::new(Vec::new());
    for changes in 0..6 {
        let mut pair = Pair::new(None, &node::rows(20_000))?;
        pair.run(&syn)?;
        pair.run(&answer)?;
        let mut left = changes;
        let cpus = Rival::new(&pair.memory, |memory, moment, _| {
            left -= 1;
            if left < 0 {
                moments.borrow_mut().push(moment);
                let outcome = user::run(memory, &data, &mut Scratch::default());
                assert_eq!(outcome.verdict, Verdict::Translate(Reason::Forward));
            }
            left < 0
        });
        let Ok(outcome) = cpus.run(&ack) else {
            // This CPU makes no more changes than that.
            break;
        };
        assert_eq!(
            outcome.verdict,
            Verdict::Translate(Reason::Forward),
            "{moments:?}"
        );
        assert_eq!(pair.memory.half_open.borrow().len(), 0, "{moments:?}");
        assert_eq!(pair.memory.flows.borrow().len(), 2, "{moments:?}");
        assert_eq!(
            connection.states(row(&pair))?,
            [FlowState::ClientClosed; 2],
            "{moments:?}"
        );
    }
    assert_eq!(
        moments.into_inner(),
        [Moment::Insert, Moment::Insert, Moment::Remove, Moment::Remove]
    );
    Ok(())
}

/// While one CPU moves a connection from one table to the other, another always finds it.
#[test]
fn p9_a_connection_that_moves_is_found_in_the_kernel() -> Result<()> {
    let Some(mut kernel) = kernel()? else {
        return Ok(());
    };
    let refused = kernel.counter(Reason::RejectUnknownFlow)?;
    let reversed = kernel.counter(Reason::Reverse)?;
    for port in 20_000..20_000 + ROUNDS {
        let connection = Connection::from_port(port);
        let [syn, answer, ack] = connection.handshake();
        kernel.run(&syn)?;
        kernel.run(&answer)?;
        let other = if port % 2 == 0 {
            connection.request(ACK)
        } else {
            connection.answer(ACK)
        };
        kernel.at_once([&ack, &other])?;
        let states = connection.states(|key| kernel.flow(Room::Established, key))?;
        assert_eq!(states, [FlowState::Established; 2], "port {port}");
    }
    assert_eq!(kernel.flows(Room::HalfOpen)?.len(), 0);
    assert_eq!(kernel.flows(Room::Established)?.len(), 2 * usize::from(ROUNDS));
    assert_eq!(kernel.counter(Reason::RejectUnknownFlow)?, refused);
    let answers = u64::from(ROUNDS) + u64::from(ROUNDS / 2);
    assert_eq!(kernel.counter(Reason::Reverse)?, reversed + answers);
    Ok(())
}
