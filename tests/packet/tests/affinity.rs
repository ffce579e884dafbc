//! Whom a client sticks to: each rule for itself, two CPUs at once, and what sockets are told.

use std::thread::available_parallelism;

use anyhow::{Context, Result};
use proxy_common::{Affinity, AffinityBackend, AffinityKey, Backend, BackendSet, Ip, Reason};
use proxy_datapath::select::{Pick, offer};
use proxy_datapath::socket::{Answer, Call, to_service};
use proxy_datapath::tables::{Room, Tables as _};
use weir_packet::craft::{Craft, SYN};
use weir_packet::kernel::Kernel;
use weir_packet::memory::Memory;
use weir_packet::node::{self, Host, Port};
use weir_packet::pair::Pair;
use weir_packet::rival::{Moment, Rival};
use weir_packet::services::SPECS;
use weir_packet::user::{Arrival, Program, Socket};

const TCP: u8 = 6;
const UDP: u8 = 17;
const NOW: u32 = 1_000_000;
const TIMEOUT: u32 = 100;

/// The service `sticky`: three backends, the first two here.
fn index(name: &str) -> usize {
    SPECS
        .iter()
        .position(|spec| spec.name == name)
        .unwrap_or(usize::MAX)
}

fn memory() -> Result<Memory> {
    let mut rows = node::rows(20_000);
    for (_, next) in &mut rows.cursors {
        *next = 0;
    }
    let pair = Pair::new(None, &rows)?;
    pair.memory.now.set(NOW);
    Ok(pair.memory)
}

fn key(service: u32, client: Ip, set: BackendSet) -> AffinityKey {
    AffinityKey {
        client,
        service,
        set: u32::from(set.code()),
    }
}

/// What stands in a client's row, and whether that holds.
type Case = (&'static str, fn(&mut Affinity, &mut AffinityBackend), bool);

const CASES: [Case; 12] = [
    ("as it was written", |_, _| {}, true),
    ("on its last second", |row, _| row.last_seen = NOW - TIMEOUT, true),
    (
        "a second too late",
        |row, _| row.last_seen = NOW - TIMEOUT - 1,
        false,
    ),
    (
        "seen by a CPU that is ahead",
        |row, _| row.last_seen = NOW + 1,
        true,
    ),
    ("since the machine was booted", |row, _| row.last_seen = 0, false),
    ("the backend left the set", |_, there| there.in_cluster = 0, false),
    ("it is in this set only", |_, there| there.in_local = 0, true),
    (
        "nobody may stick to it",
        |_, there| *there = AffinityBackend::default(),
        false,
    ),
    (
        "its id is another service's",
        |_, there| there.backend.service += 1,
        false,
    ),
    (
        "its id was given out again",
        |row, there| (row.last_seen, there.backend.generation) = (NOW - 2, 2),
        false,
    ),
    (
        "just written, its generation not yet",
        |row, _| (row.last_seen, row.backend_generation) = (NOW - 1, 0),
        true,
    ),
    (
        "an id that there is not",
        |row, _| row.backend_id = u32::MAX,
        false,
    ),
];

#[test]
fn a_row_holds_while_all_that_it_says_is_true() -> Result<()> {
    let sticky = index("sticky");
    let service = node::service_id(sticky, false);
    let client = Host::Outside(7).ip(false);
    let last = node::slab(sticky, false) + 2;
    for (name, change, holds) in CASES {
        let mut memory = memory()?;
        let mut row = Affinity {
            backend_id: last,
            last_seen: NOW - 50,
            backend_generation: 1,
        };
        let mut there = memory.affinity_backends[&last];
        change(&mut row, &mut there);
        memory.affinity_backends.insert(last, there);
        let key = key(service, client, BackendSet::Cluster);
        memory.affinity.borrow_mut().insert(key, row);

        let frontend = memory.services.values().find(|row| row.id == service);
        let mut pick = Pick::of_node();
        pick.now = NOW;
        pick.client.client = client;
        let offered = offer(frontend.context("no such service")?, true, &mut pick);
        assert_eq!((offered, memory.pick(&mut pick)), (Ok(()), true), "{name}");
        // Whoever is held takes no turn; the first turn is the first backend.
        let wanted = if holds { (last, 0) } else { (last - 2, 1) };
        let turns = memory.take_touched().cursors.len();
        assert_eq!((pick.backend.id, turns), wanted, "{name}");
        let after = memory.affinity.borrow()[&key];
        assert_eq!(
            (after.backend_id, after.last_seen),
            (pick.backend.id, NOW.max(after.last_seen)),
            "{name}"
        );
    }
    Ok(())
}

fn syn(client: Host, port: u16, node_port: u16) -> Arrival {
    let ends = ((client.ip(false), port), (Host::Node.ip(false), node_port));
    let bytes = Craft::tcp(ends.0, ends.1, SYN).bytes(true);
    Arrival::at(Program::UplinkIngress, Port::Uplink, bytes)
}

/// A client's first two connections meet on two CPUs: whatever stood in its row before, both go to one backend.
#[test]
fn two_cpus_send_a_client_to_one_backend() -> Result<()> {
    let sticky = index("sticky");
    let service = node::service_id(sticky, false);
    let client = Host::Outside(7);
    let key = key(service, client.ip(false), BackendSet::Cluster);
    let row = |backend: u32, silent: u32| Affinity {
        backend_id: node::slab(sticky, false) + backend,
        last_seen: NOW - silent,
        backend_generation: 1,
    };
    let rows = [None, Some(row(2, TIMEOUT + 1)), Some(row(3, 1)), Some(row(3, 0))];
    let packets = [syn(client, 50_000, 30190), syn(client, 50_001, 30190)];
    for before in rows {
        let memory = memory()?;
        memory.affinity.borrow_mut().extend(before.map(|row| (key, row)));
        let stick = |moment, _: &_| moment == Moment::Stick;
        Rival::packet(&memory, stick, &packets[1]).run(&packets[0])?;
        let backends: Vec<u32> = memory.rows().iter().map(|(_, _, flow)| flow.backend_id).collect();
        assert_eq!(backends, [backends[0]; 4], "{before:?}");
        let after = memory.affinity.borrow()[&key];
        assert_eq!(
            (after.backend_id, after.last_seen),
            (backends[0], NOW),
            "{before:?}"
        );
        assert_eq!(memory.take_touched().cursors.len(), 2, "the second turn is lost");
    }
    Ok(())
}

#[test]
fn two_cpus_send_a_client_to_one_backend_in_the_kernel() -> Result<()> {
    if !weir_lab::require_root() || available_parallelism()?.get() < 2 {
        return Ok(());
    }
    let mut kernel = Kernel::load()?;
    kernel.reset(&node::rows(20_000))?;
    let sticky = index("sticky");
    let service = node::service_id(sticky, false);
    let first = node::slab(sticky, false);
    let (mut met, rounds) = (0, 2_000_u16);
    for round in 0..rounds {
        let [high, low] = round.to_be_bytes();
        let client = Ip::v4([203, 0, high, low]);
        let key = key(service, client, BackendSet::Cluster);
        // Every second one stuck to a backend that is gone.
        if round % 2 == 1 {
            let gone = Affinity {
                backend_id: first + 3,
                last_seen: 1,
                backend_generation: 1,
            };
            kernel.set_affinity(&key, Some(&gone))?;
        }
        let packet = |port| Arrival {
            bytes: Craft::tcp((client, port), (Host::Node.ip(false), 30190), SYN).bytes(true),
            ..syn(Host::Node, port, 30190)
        };
        let turns = kernel.cursor(service * 2)?;
        kernel.at_once([&packet(50_000), &packet(50_001)])?;
        met += u32::from(kernel.cursor(service * 2)?.wrapping_sub(turns) == 2);
        let row = kernel.affinity(&key)?.context("the client sticks to nobody")?;
        let flows = kernel.flows(Room::HalfOpen)?;
        let backends: Vec<u32> = flows
            .values()
            .filter(|flow| flow.client == client)
            .map(|flow| flow.backend_id)
            .collect();
        assert_eq!(backends, [row.backend_id; 4], "round {round}");
        for key in flows.keys() {
            kernel.set_flow(Room::HalfOpen, key, None)?;
        }
    }
    println!("two CPUs met {met} times of {rounds}");
    Ok(())
}

fn ask(memory: &Memory, socket: Socket, protocol: u8, connect: bool, to: (Ip, u16)) -> Answer {
    let (address, port) = to;
    let call = Call {
        address,
        port,
        protocol,
        connect,
    };
    to_service(memory, &socket, &call)
}

fn used(backend: Backend) -> Answer {
    Answer::Use(backend.address, backend.port)
}

/// All processes of the node are one client, at every frontend and by every kind of socket.
#[test]
fn the_node_is_one_client() -> Result<()> {
    for (name, protocol, vip, node_port) in [
        ("sticky", TCP, (60, 80), 30190),
        ("sticky-udp", UDP, (61, 53), 30191),
    ] {
        let memory = memory()?;
        let first = memory.backends[&node::slab(index(name), false)];
        let frontends = [
            (Host::Vip(vip.0).ip(false), vip.1),
            (Host::Node.ip(false), node_port),
        ];
        for cookie in 1..5 {
            let socket = Socket { cookie, host: true };
            for to in frontends {
                for connect in [true, protocol == TCP] {
                    let answer = ask(&memory, socket, protocol, connect, to);
                    assert_eq!(answer, used(first), "{name} socket {cookie}");
                }
            }
        }
        assert_eq!(memory.take_touched().cursors.len(), 1, "{name}");
        // Its address is nobody's.
        let service = node::service_id(index(name), false);
        let key = key(service, Ip::UNSPECIFIED, BackendSet::Cluster);
        assert!(memory.affinity.borrow().contains_key(&key), "{name}");
    }
    Ok(())
}

/// A pod is known by an address that its socket does not have yet: its packets have it.
#[test]
fn pods_are_left_to_the_packet_path() -> Result<()> {
    let pod = Socket {
        cookie: 9,
        host: false,
    };
    let memory = memory()?;
    let (tcp, udp) = ((Host::Vip(60).ip(false), 80), (Host::Vip(61).ip(false), 53));
    assert_eq!(ask(&memory, pod, TCP, true, tcp), Answer::Leave);
    assert_eq!(ask(&memory, pod, UDP, true, udp), Answer::Leave);
    assert!(!memory.is_shared(41_000), "a connected socket has one peer");
    assert_eq!(ask(&memory, pod, UDP, false, udp), Answer::Leave);
    assert!(
        memory.is_shared(41_000),
        "the same socket may use the same backend past the packet path"
    );
    assert!(memory.affinity.borrow().is_empty());
    assert!(memory.take_touched().cursors.is_empty());
    Ok(())
}

/// A socket that was told a backend goes on with it; switched on, affinity is for what begins.
#[test]
fn what_a_socket_was_told_stands() -> Result<()> {
    let mut memory = memory()?;
    let pod = Socket {
        cookie: 9,
        host: false,
    };
    let to = (Host::Vip(61).ip(false), 53);
    let switch = |memory: &mut Memory, timeout| {
        for row in memory.services.values_mut() {
            row.affinity_timeout = timeout;
        }
    };
    switch(&mut memory, 0);
    let told = ask(&memory, pod, UDP, false, to);
    assert_eq!(
        told,
        used(memory.backends[&node::slab(index("sticky-udp"), false)])
    );
    switch(&mut memory, 2);
    assert_eq!(ask(&memory, pod, UDP, false, to), told);
    let other = Socket { cookie: 10, ..pod };
    assert_eq!(ask(&memory, other, UDP, false, to), Answer::Leave);
    Ok(())
}

#[test]
fn a_set_without_backends_refuses_as_before() -> Result<()> {
    let mut memory = memory()?;
    let host = Socket {
        cookie: 1,
        host: true,
    };
    let to = (Host::Vip(62).ip(false), 80);
    for row in memory.services.values_mut() {
        row.local.count = 0;
    }
    let answer = ask(&memory, host, TCP, true, to);
    assert_eq!(answer, Answer::Block(Reason::DropNoLocalEndpoints));
    for row in memory.services.values_mut() {
        row.cluster.count = 0;
    }
    let answer = ask(&memory, host, TCP, true, to);
    assert_eq!(answer, Answer::Refuse(Reason::RejectNoEndpoints));
    assert!(memory.affinity.borrow().is_empty());
    Ok(())
}
