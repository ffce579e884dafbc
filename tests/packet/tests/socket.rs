//! What sockets are told, on the rows of the tests' node, in user space. `tests/node` has the same with real sockets.

use proxy_common::{Direction, Ip, Reason, SocketKey};
use proxy_datapath::socket::{Answer, Call, Caller, from_backend, to_service};
use proxy_datapath::tables::Tables as _;
use weir_packet::memory::Memory;
use weir_packet::node::{self, Host, Masquerade, Rows};
use weir_packet::user::{SOURCE_PORT, Socket};

const TCP: u8 = 6;
const UDP: u8 = 17;

const HOST: Socket = Socket {
    cookie: 1,
    host: true,
};
const POD: Socket = Socket {
    cookie: 2,
    host: false,
};
/// The node's rows, with all cursors at zero.
fn memory() -> Memory {
    memory_of(node::rows(20_000))
}

fn memory_of(rows: Rows) -> Memory {
    Memory {
        config: rows.config,
        addresses: rows.addresses.into_iter().collect(),
        service_cidrs: rows.service_cidrs,
        services: rows.services.into_iter().collect(),
        sources: rows.sources,
        backends: rows.backends.into_iter().collect(),
        states: rows
            .states
            .into_iter()
            .collect::<std::collections::HashMap<_, _>>()
            .into(),
        ..Memory::default()
    }
}

fn call(protocol: u8, connect: bool, (address, port): (Ip, u16)) -> Call {
    Call {
        address,
        port,
        protocol,
        connect,
    }
}

fn send(memory: &Memory, socket: Socket, to: (Ip, u16)) -> Answer {
    to_service(memory, &socket, &call(UDP, false, to))
}

fn connect(memory: &Memory, socket: Socket, protocol: u8, to: (Ip, u16)) -> Answer {
    to_service(memory, &socket, &call(protocol, true, to))
}

/// What an answer from a backend is named.
fn named(memory: &Memory, socket: Socket, from: (Ip, u16)) -> Option<(Ip, u16)> {
    from_backend(memory, &socket, &call(UDP, false, from))
}

fn turns(memory: &Memory) -> usize {
    memory.take_touched().cursors.len()
}

fn vip(number: u8) -> Ip {
    Host::Vip(number).ip(false)
}

/// The backends of `dns` and `dns-too`, in the order of their turns.
fn dns() -> [(Ip, u16); 3] {
    [(Host::Pod2, 5353), (Host::Remote(5), 5353), (Host::Remote(6), 53)]
        .map(|(host, port)| (host.ip(false), port))
}

fn used((address, port): (Ip, u16)) -> Answer {
    Answer::Use(address, port)
}

/// A Service with one backend in place of three.
fn shrink(memory: &mut Memory, number: u8) {
    for (key, row) in &mut memory.services {
        if key.address == vip(number) {
            row.cluster.count = 1;
        }
    }
}

#[test]
fn each_frontend_of_a_socket_gets_a_backend_of_its_own() {
    for socket in [HOST, POD] {
        let memory = memory();
        let [one, two, _] = dns();
        assert_eq!(send(&memory, socket, (vip(53), 53)), used(one));
        // The first turn is the same backend, so it takes another.
        assert_eq!(send(&memory, socket, (vip(54), 53)), used(two));
        assert_eq!(turns(&memory), 3);
        assert_eq!(named(&memory, socket, one), Some((vip(53), 53)));
        assert_eq!(named(&memory, socket, two), Some((vip(54), 53)));
        // From then on both are known.
        assert_eq!(send(&memory, socket, (vip(53), 53)), used(one));
        assert_eq!(send(&memory, socket, (vip(54), 53)), used(two));
        assert_eq!(turns(&memory), 0);
        // Another socket is another matter.
        let other = Socket { cookie: 9, ..socket };
        assert_eq!(send(&memory, other, (vip(54), 53)), used(dns()[2]));
    }
}

#[test]
fn what_a_pod_cannot_tell_apart_is_left_to_the_packet_path() {
    let mut memory = memory();
    shrink(&mut memory, 53);
    shrink(&mut memory, 54);
    let [one, ..] = dns();
    assert_eq!(send(&memory, POD, (vip(53), 53)), used(one));
    assert!(!memory.is_shared(SOURCE_PORT));
    let _turns = turns(&memory);
    assert_eq!(send(&memory, POD, (vip(54), 53)), Answer::Leave);
    assert!(
        memory.is_shared(SOURCE_PORT),
        "or the packet path would use the port again"
    );
    let touched = memory.take_touched();
    assert!(touched.chosen.is_empty(), "the packet path will count it");

    // Later datagrams take no turn and change nothing.
    for _ in 0..3 {
        assert_eq!(send(&memory, POD, (vip(54), 53)), Answer::Leave);
        assert_eq!(send(&memory, POD, (vip(53), 53)), used(one));
    }
    assert_eq!(turns(&memory), 0);
    assert_eq!(named(&memory, POD, one), Some((vip(53), 53)));
}

#[test]
fn a_frontend_comes_back_from_the_packet_path_with_another_backend() {
    let mut memory = memory();
    shrink(&mut memory, 53);
    shrink(&mut memory, 54);
    let [one, two, _] = dns();
    assert_eq!(send(&memory, POD, (vip(53), 53)), used(one));
    assert_eq!(send(&memory, POD, (vip(54), 53)), Answer::Leave);
    // The backend of the second Service dies, and another one takes its slot.
    let service = memory
        .services
        .iter()
        .find(|(key, _)| key.address == vip(54))
        .map(|(_, row)| *row);
    let slot = service.map_or(0, |row| row.cluster.base);
    memory.states.borrow_mut().entry(slot).or_default().serving = 0;
    if let Some(backend) = memory.backends.get_mut(&slot) {
        (backend.address, backend.port) = two;
        backend.id = slot + 1;
    }
    assert_eq!(send(&memory, POD, (vip(54), 53)), used(two));
    assert_eq!(named(&memory, POD, two), Some((vip(54), 53)));
}

#[test]
fn for_a_host_process_the_frontend_that_was_used_last_has_the_name() {
    let mut memory = memory();
    shrink(&mut memory, 53);
    shrink(&mut memory, 54);
    let [one, ..] = dns();
    for number in [53, 54, 54, 53, 54] {
        assert_eq!(send(&memory, HOST, (vip(number), 53)), used(one));
        assert_eq!(named(&memory, HOST, one), Some((vip(number), 53)));
    }
    assert!(!memory.is_shared(SOURCE_PORT));
}

#[test]
fn a_row_for_answers_that_was_evicted_is_made_again() {
    let memory = memory();
    let [one, ..] = dns();
    assert_eq!(send(&memory, POD, (vip(53), 53)), used(one));
    let evicted = |key: &SocketKey| key.direction == Direction::FromBackend.code();
    memory.sockets.borrow_mut().retain(|key, _| !evicted(key));
    assert_eq!(named(&memory, POD, one), None);
    assert_eq!(send(&memory, POD, (vip(53), 53)), used(one));
    assert_eq!(named(&memory, POD, one), Some((vip(53), 53)));
}

#[test]
fn a_connected_socket_has_one_frontend_and_takes_one_turn() {
    let mut memory = memory();
    shrink(&mut memory, 53);
    shrink(&mut memory, 54);
    let [one, ..] = dns();
    for number in [53, 54] {
        assert_eq!(connect(&memory, HOST, UDP, (vip(number), 53)), used(one));
        assert_eq!(turns(&memory), 1);
        assert_eq!(named(&memory, HOST, one), Some((vip(number), 53)));
    }
    // Connected UDP of pods is the packet path's.
    assert_eq!(connect(&memory, POD, UDP, (vip(53), 53)), Answer::Leave);
    // A TCP socket whose connection failed may try another Service.
    let web = (Host::Pod1.ip(false), 8080);
    for number in [10, 11] {
        assert_eq!(connect(&memory, POD, TCP, (vip(number), 80)), used(web));
        assert_eq!(
            from_backend(&memory, &POD, &call(TCP, true, web)),
            Some((vip(number), 80))
        );
    }
    assert_eq!(turns(&memory), 2);
}

/// A socket that may be asked for its cookie at most: each question is a call of the kernel.
struct Silent(Option<u64>);

impl Caller for Silent {
    fn cookie(&self) -> u64 {
        let Some(cookie) = self.0 else {
            unreachable!("the cookie is asked for")
        };
        cookie
    }

    fn is_host(&self) -> bool {
        unreachable!("the network namespace is asked for")
    }

    fn source_port(&self) -> u16 {
        unreachable!("the port is asked for")
    }
}

#[test]
fn sockets_that_weir_does_not_know_are_asked_nothing() {
    let memory = memory();
    let [one, ..] = dns();
    let nobody = Silent(None);
    for protocol in [TCP, UDP] {
        for connect in [true, false] {
            let elsewhere = call(protocol, connect, one);
            assert_eq!(to_service(&memory, &nobody, &elsewhere), Answer::Leave);
        }
    }
    // Who is accepted has a port that no socket was given, also if its address is a backend's.
    assert_eq!(send(&memory, POD, (vip(53), 53)), used(one));
    let client = call(TCP, false, (one.0, 45_000));
    assert_eq!(from_backend(&memory, &nobody, &client), None);
    // Where a TCP socket is does not matter.
    let web = call(TCP, true, (vip(10), 80));
    let backend = (Host::Pod1.ip(false), 8080);
    assert_eq!(to_service(&memory, &Silent(Some(3)), &web), used(backend));
}

#[test]
fn nobody_there_is_said_at_once() {
    let memory = memory();
    assert_eq!(
        send(&memory, POD, (vip(31), 53)),
        Answer::Refuse(Reason::RejectNoEndpoints)
    );
    assert_eq!(
        send(&memory, POD, (vip(53), 54)),
        Answer::Refuse(Reason::RejectUndefinedPort)
    );
    assert_eq!(send(&memory, POD, (Host::Remote(5).ip(false), 53)), Answer::Leave);
    assert_eq!(send(&memory, HOST, (Host::Node.ip(false), 30_999)), Answer::Leave);
    assert!(memory.sockets.borrow().is_empty());
}

#[test]
fn a_load_balancer_that_lets_only_some_in_sees_a_host_process_as_the_node() {
    let mut memory = memory();
    let guarded = (Host::Balancer(46).ip(false), 88);
    let shut_out = Answer::Block(Reason::DropSourceRange);
    assert_eq!(connect(&memory, HOST, TCP, guarded), shut_out);
    assert_eq!(turns(&memory), 0);
    // A pod's address is known to the packet path only.
    assert_eq!(connect(&memory, POD, TCP, guarded), Answer::Leave);
    let node = memory.config.fallback_source_v4;
    for (_, key, _) in &mut memory.sources {
        key.address = node;
    }
    let backend = (Host::Pod2.ip(false), 8080);
    assert_eq!(connect(&memory, HOST, TCP, guarded), used(backend));
    // Its node port is for everybody.
    let node_port = (Host::Node.ip(false), 30088);
    assert_eq!(connect(&memory, POD, TCP, node_port), used(backend));
}

#[test]
fn a_cluster_ip_that_no_service_has_answers_nobody() {
    let memory = memory();
    let unallocated = Answer::Block(Reason::DropUnallocated);
    for socket in [HOST, POD] {
        assert_eq!(connect(&memory, socket, TCP, (vip(200), 80)), unallocated);
        assert_eq!(send(&memory, socket, (vip(200), 53)), unallocated);
        // Neither TCP nor UDP, and an address that is no ClusterIP.
        assert_eq!(connect(&memory, socket, 132, (vip(200), 80)), Answer::Leave);
        let elsewhere = (Host::Remote(5).ip(false), 80);
        assert_eq!(connect(&memory, socket, TCP, elsewhere), Answer::Leave);
    }
}

#[test]
fn other_ports_of_a_load_balancer_are_left_to_the_host_unless_they_are_to_be_rejected() {
    let mut memory = memory();
    let ends = [Host::Balancer(10), node::BALANCER_ON_NODE].map(|host| (host.ip(false), 81));
    for end in ends {
        assert_eq!(connect(&memory, POD, TCP, end), Answer::Leave);
    }
    memory.config.reject_vip_ports = 1;
    let [balancer, node] = ends;
    let refused = Answer::Refuse(Reason::RejectUndefinedPort);
    assert_eq!(connect(&memory, POD, TCP, balancer), refused);
    assert_eq!(connect(&memory, POD, TCP, node), Answer::Leave, "the node's own");
}

#[test]
fn a_pod_whose_backend_shall_see_the_node_is_left_to_its_packets() {
    let (cluster_ip, node_port) = ((vip(40), 443), (Host::Node.ip(false), 30443));
    let policy_local = (Host::Node.ip(false), 30081);
    let backend = Answer::Use(Host::Remote(6).ip(false), 8443);
    let memory = memory_of(node::rows(20_000).with(Masquerade::All));
    assert_eq!(connect(&memory, POD, TCP, cluster_ip), Answer::Leave);
    assert_eq!(
        connect(&memory, HOST, TCP, cluster_ip),
        backend,
        "its address is the node's"
    );
    assert_eq!(connect(&memory, POD, TCP, node_port), backend);
    // By UDP too, and the port is marked: a datagram past the packets may use the same tuple.
    assert_eq!(send(&memory, POD, (vip(43), 53)), Answer::Leave);
    assert!(memory.is_shared(SOURCE_PORT));
    let memory = memory_of(node::rows(20_000).with(Masquerade::External));
    assert_eq!(connect(&memory, POD, TCP, cluster_ip), backend);
    assert_eq!(connect(&memory, POD, TCP, node_port), Answer::Leave);
    assert_eq!(connect(&memory, HOST, TCP, node_port), backend);
    let local = connect(&memory, POD, TCP, policy_local);
    assert!(matches!(local, Answer::Use(..)), "{local:?}");
}

#[test]
fn node_ports_at_localhost_are_for_host_processes() {
    let memory = memory();
    let localhost = |port| (node::loopback(false), port);
    let backend = (Host::Remote(6).ip(false), 8443);
    assert_eq!(connect(&memory, HOST, TCP, localhost(30443)), used(backend));
    assert_eq!(connect(&memory, POD, TCP, localhost(30443)), Answer::Leave);
    // Within the node ports, and no node port; and any other port.
    for port in [30442, 22] {
        assert_eq!(connect(&memory, HOST, TCP, localhost(port)), Answer::Leave);
    }
}
