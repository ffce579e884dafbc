//! What two CPUs do to one connection at the same time: in user space at a chosen moment, in the kernel as it comes.

use std::thread::available_parallelism;

use anyhow::{Context, Error, Result};
use proxy_common::{Flow, FlowKey, FlowState, Hook};
use weir_packet::craft::{ACK, Craft, Endpoint, FIN, SYN};
use weir_packet::kernel::Kernel;
use weir_packet::node::{self, Host, Port};
use weir_packet::pair::Pair;
use weir_packet::rival::{Moment, Rival};
use weir_packet::user::{Arrival, Program};

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
    Arrival {
        program,
        interface: Port::Pod1.index(),
        segment: 0,
        bytes: packet.bytes(true),
    }
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
        at_pod(Program::Egress, &Craft::tcp(BACKEND, self.client, flags))
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
    |key| Ok(pair.memory.flows.borrow().get(key).copied())
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
        Rival::packet(&pair.memory, Moment::Touch, &fins[second]).run(&fins[first])?;
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
        let states = connection.states(|key| kernel.flow(key))?;
        assert_eq!(states, [FlowState::Established; 2], "port {port}");
        kernel.at_once([&connection.request(FIN | ACK), &connection.answer(FIN | ACK)])?;
        let states = connection.states(|key| kernel.flow(key))?;
        assert_eq!(states, [FlowState::Closed; 2], "port {port}");
    }
    Ok(())
}
