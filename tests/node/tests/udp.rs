//! UDP leaves a backend that does not serve any more at once, whoever asks, and nobody else is disturbed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use weir_lab::manifest::{Endpoint, Port, Service};
use weir_lab::peer::connect::ConnectOptions;
use weir_lab::{Host, Pod, clock};
use weir_node::ask::{ask, at};
use weir_node::probe::{Finding, Probe};
use weir_node::services::{Known, REMOTE, SOLO, TARGET, UDP, endpoints, family};
use weir_node::{By, World, can_run};

/// How long after a change nobody may hear answers from where it leads.
const AT_ONCE: Duration = Duration::from_millis(100);

const METRICS: u16 = 10249;

/// A client that goes on by itself.
struct Client {
    what: String,
    thread: JoinHandle<Result<Finding>>,
}

impl Client {
    fn start(what: &str, by: By, host: &Host, probe: Probe) -> Self {
        let host = host.clone();
        Self {
            what: what.to_owned(),
            thread: thread::spawn(move || by.probe(&host, &probe)),
        }
    }

    /// A process of the node itself with a connected socket.
    fn of_host(world: &World, target: SocketAddr, millis: u64) -> Self {
        let what = format!("host process, {target}");
        let probe = Probe::Ask { target, millis };
        Self::start(&what, By::Socket, world.n1.host(), probe)
    }

    /// One for each way to a Service: pods by both hooks, a machine outside by the node port, a process of the node.
    fn everywhere(world: &World, service: Known, millis: u64) -> Vec<Self> {
        let mut clients = Vec::new();
        for (target, node_port) in service.udp().into_iter().zip(world.at_n1(service.node_udp())) {
            let mut stream = |what, by, host: &Host, target, connected| {
                let probe = Probe::Stream {
                    target,
                    connected,
                    millis,
                };
                let what = format!("{what}, {}", family(target));
                clients.push(Self::start(&what, by, host, probe));
            };
            stream("pod, connected", By::Socket, &world.client, target, true);
            stream("pod, not connected", By::Socket, &world.client, target, false);
            stream("packet path", By::Packet, &world.sandbox, target, true);
            stream("node port", By::Packet, &world.outside, node_port, true);
            clients.push(Self::of_host(world, target, millis));
        }
        clients
    }

    fn finding(self) -> Result<(String, Finding)> {
        let finding = self.thread.join().ok().context("the client panicked")??;
        println!(
            "{}: {:?} {:?}, longest silence {} ms, ended {} times",
            self.what, finding.names, finding.counts, finding.longest_silence_ms, finding.aborted
        );
        ensure!(finding.error.is_none(), "{}: {finding:?}", self.what);
        Ok((self.what, finding))
    }

    /// These answered in turn, its socket was ended so often, and it was never silent for long.
    fn heard(self, names: &[&str], aborted: u64) -> Result<()> {
        let (what, finding) = self.finding()?;
        ensure!(
            finding.names == names && finding.aborted == aborted,
            "{what}: {finding:?}"
        );
        ensure!(
            Duration::from_millis(finding.longest_silence_ms) < AT_ONCE,
            "{what}: {finding:?}"
        );
        Ok(())
    }

    /// As often as a host process is told that its endpoint is gone: others notice nothing.
    fn is_host(&self) -> bool {
        self.what.starts_with("host")
    }
}

/// What the agent counts.
fn ended(world: &World, result: &str) -> Result<u64> {
    let text = ask(world.n1.host(), at(Ipv4Addr::LOCALHOST, METRICS), "/metrics")?.body;
    let name = format!("weir_sockets_ended_total{{result=\"{result}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&name));
    Ok(value.with_context(|| format!("no {name}"))?.parse()?)
}

/// A new Service with this one endpoint.
fn begin(world: &World, pods: &[&Pod]) -> Result<()> {
    SOLO.write(&world.manifests, pods)?;
    world.settled(SOLO, pods)?;
    Ok(())
}

#[test]
fn p10_a_host_process_is_told_that_its_endpoint_is_gone() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("udphost")?;
    let [v4, v6] = SOLO.udp();
    let IpAddr::V4(ip) = v4.ip() else {
        bail!("{v4} comes first");
    };
    let mapped = SocketAddr::new(ip.to_ipv6_mapped().into(), v4.port());
    for target in [v4, v6, mapped] {
        assert_told(&world, target)?;
    }
    ensure!(ended(&world, "refused")? == 0, "the kernel refused");
    Ok(())
}

fn assert_told(world: &World, target: SocketAddr) -> Result<()> {
    let [web_1, web_2, _] = &world.web;
    let host = world.n1.host();
    begin(world, &[web_1])?;
    let told = Client::of_host(world, target, 900);
    // To the same address and port, but it was the process itself that said so.
    let foreign: Vec<Client> = web_1
        .addresses()
        .map(|address| {
            let target = SocketAddr::new(address, TARGET);
            Client::start("foreign", By::Socket, host, Probe::Ask { target, millis: 900 })
        })
        .into_iter()
        .collect();
    let [other, _] = REMOTE.udp();
    let other = Client::of_host(world, other, 900);
    let [tcp, _] = SOLO.tcp();
    let long = ConnectOptions {
        hold: Duration::from_secs(600),
        ..ConnectOptions::new(tcp, 5, 5)
    };
    let long = By::Socket.start(host, &long)?;
    thread::sleep(Duration::from_millis(400));
    let before = ended(world, "done")?;
    SOLO.write(&world.manifests, &[web_2])?;
    let settled = world.settled(SOLO, &[web_2])?;
    let since = clock::now();
    let counted = clock::wait_until(AT_ONCE, || {
        ended(world, "done").is_ok_and(|now| now == before + 1)
    });
    println!("settled after {settled:?}, ended {:?} later", since.elapsed());
    ensure!(counted, "{before} and now {} were ended", ended(world, "done")?);
    told.heard(&["web-1", "web-2"], 1)?;
    for client in foreign {
        client.heard(&["web-1"], 0)?;
    }
    other.heard(&["web-3"], 0)?;
    let report = long.stop()?;
    ensure!(
        report.is_clean() && report.backend("web-1") == 5,
        "TCP: {report:?}"
    );
    Ok(())
}

#[test]
fn p10_everybody_leaves_a_backend_that_dies() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let mut world = World::new("udpdies")?;
    let [web_1, web_2, _] = world.web.clone();
    let clients = Client::everywhere(&world, SOLO, 900);
    thread::sleep(Duration::from_millis(400));
    SOLO.write(&world.manifests, &[&web_2])?;
    let [server, ..] = &mut world.servers;
    drop(server.take());
    for client in clients {
        let aborted = u64::from(client.is_host());
        client.heard(&[web_1.name(), web_2.name()], aborted)?;
    }
    Ok(())
}

#[test]
fn p10_everybody_waits_while_there_is_no_endpoint() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("udpzero")?;
    let [web_1, web_2, _] = &world.web;
    let clients = Client::everywhere(&world, SOLO, 1500);
    thread::sleep(Duration::from_millis(400));
    begin(&world, &[])?;
    thread::sleep(Duration::from_millis(400));
    begin(&world, &[web_2])?;
    for client in clients {
        let aborted = u64::from(client.is_host());
        let (what, finding) = client.finding()?;
        ensure!(
            finding.names == [web_1.name(), web_2.name()] && finding.aborted == aborted,
            "{what}: {finding:?}"
        );
        ensure!(
            (300..600).contains(&finding.longest_silence_ms),
            "{what}: {finding:?}"
        );
    }
    Ok(())
}

#[test]
fn p10_everybody_leaves_a_backend_that_is_not_ready_and_may_return() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("udpready")?;
    let [web_1, web_2, _] = &world.web;
    let write = |ready: &Pod| -> Result<()> {
        let mut all = endpoints(&[web_1, web_2]);
        for endpoint in &mut all {
            endpoint.ready = ready.addresses().contains(&endpoint.address);
            endpoint.serving = endpoint.ready;
        }
        SOLO.write_endpoints(&world.manifests, &all)?;
        world.settled(SOLO, &[ready])?;
        Ok(())
    };
    write(web_1)?;
    let clients = Client::everywhere(&world, SOLO, 1300);
    thread::sleep(Duration::from_millis(400));
    write(web_2)?;
    thread::sleep(Duration::from_millis(300));
    write(web_1)?;
    for client in clients {
        let aborted = 2 * u64::from(client.is_host());
        client.heard(&[web_1.name(), web_2.name(), web_1.name()], aborted)?;
    }
    Ok(())
}

/// Hints, policies, names and the Service itself may go: flows stay where they are as long as the endpoint serves.
#[test]
fn p10_nobody_leaves_an_endpoint_that_serves() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("udpserves")?;
    let [web_1, _, web_3] = &world.web;
    let write = |service: &Service, endpoints: &[Endpoint]| -> Result<()> {
        let mut documents = vec![service.to_yaml()];
        documents.extend(service.slices(endpoints));
        world.manifests.write(&REMOTE.file(), &documents)
    };
    let clients = Client::everywhere(&world, REMOTE, 3500);
    let [tcp, _] = REMOTE.tcp();
    let long = ConnectOptions {
        hold: Duration::from_secs(600),
        ..ConnectOptions::new(tcp, 5, 5)
    };
    let loads = [
        By::Socket.start(&world.client, &long)?,
        By::Packet.start(&world.sandbox, &long)?,
    ];
    thread::sleep(Duration::from_millis(400));
    // New ones go to web-1, which is for this node.
    let mut hinted = endpoints(&[web_1, web_3]);
    for endpoint in &mut hinted {
        endpoint.for_node = Some(endpoint.node.clone());
    }
    write(&REMOTE.service(), &hinted)?;
    world.settled(REMOTE, &[web_1])?;
    thread::sleep(Duration::from_millis(400));
    let mut other = REMOTE.service();
    for port in &mut other.ports {
        port.name = format!("{}-2", port.name);
    }
    let local = other
        .spec("internalTrafficPolicy: Local")
        .spec("externalTrafficPolicy: Local");
    write(&local, &hinted)?;
    thread::sleep(Duration::from_millis(400));
    for endpoint in &mut hinted {
        endpoint.ready &= !web_3.addresses().contains(&endpoint.address);
    }
    write(&local, &hinted)?;
    thread::sleep(Duration::from_millis(400));
    write(&REMOTE.service(), &endpoints(&[web_1, web_3]))?;
    world.settled(REMOTE, &[web_1, web_3])?;
    for client in clients {
        client.heard(&["web-3"], 0)?;
    }
    for load in loads {
        let report = load.stop()?;
        ensure!(
            report.is_clean() && report.backend("web-3") == 5,
            "TCP: {report:?}"
        );
    }
    Ok(())
}

/// A Service that is made again finds the flows of its endpoints where they were.
#[test]
fn p10_connected_flows_outlive_a_service_whose_endpoints_stay() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("udpagain")?;
    let [web_1, web_2, _] = &world.web;
    let [target, _] = SOLO.udp();
    let [node_port, _] = world.at_n1(SOLO.node_udp());
    let stream = |target| Probe::Stream {
        target,
        connected: true,
        millis: 1800,
    };
    let clients = [
        Client::start("packet path", By::Packet, &world.sandbox, stream(target)),
        Client::start("node port", By::Packet, &world.outside, stream(node_port)),
        Client::of_host(&world, target, 1800),
    ];
    thread::sleep(Duration::from_millis(300));
    let slices = SOLO.service().slices(&endpoints(&[web_1, web_2]));
    world.manifests.write(&SOLO.file(), &slices)?;
    world.settled_gone(SOLO)?;
    let refused = Probe::Stream {
        target,
        connected: true,
        millis: 200,
    };
    let new = By::Packet.probe(&world.sandbox, &refused)?;
    ensure!(new.names.is_empty(), "the Service is gone: {new:?}");
    begin(&world, &[web_1, web_2])?;
    for client in clients {
        client.heard(&["web-1"], 0)?;
    }
    Ok(())
}

#[test]
fn an_agent_that_was_away_makes_up_for_it() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let mut world = World::new("udpaway")?;
    let [web_1, web_2, _] = world.web.clone();
    let [target, _] = SOLO.udp();
    // Long enough for an agent that begins on a busy machine.
    let client = Client::of_host(&world, target, 8000);
    thread::sleep(Duration::from_millis(300));
    world.weir()?.kill9()?;
    SOLO.write(&world.manifests, &[&web_2])?;
    world.weir()?.restart()?;
    world.settled(SOLO, &[&web_2])?;
    client.heard(&[web_1.name(), web_2.name()], 1)
}

/// The table of sockets forgets whom it has not heard of for long; many connections make that soon.
#[test]
fn a_socket_is_known_after_many_others() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("udpmany")?;
    let [web_1, web_2, _] = &world.web;
    let [target, _] = SOLO.udp();
    let [crowd, _] = REMOTE.udp();
    let client = Client::of_host(&world, target, 22_000);
    thread::sleep(Duration::from_millis(300));
    // Two rows each: twice what the table holds, but not in the time between two looks.
    let probe = Probe::Connects {
        target: crowd,
        rate: 4000,
        millis: 18_000,
    };
    let found = By::Socket.probe(world.n1.host(), &probe)?;
    println!("{} sockets", found.ok);
    ensure!(found.error.is_none() && found.ok > 50_000, "{found:?}");
    begin(&world, &[web_2])?;
    // Silences are of the crowd's making.
    let (_, finding) = client.finding()?;
    ensure!(
        finding.names == [web_1.name(), web_2.name()] && finding.aborted == 1,
        "{finding:?}"
    );
    Ok(())
}

/// A Service of this name and last byte of its ClusterIPs, with this UDP node port if it has one, and this endpoint.
fn echo(world: &World, (name, number): (&str, u8), node_port: Option<u16>, pod: &Pod) -> Result<()> {
    let ips = [
        IpAddr::V4(Ipv4Addr::new(10, 96, 0, number)),
        format!("fd00:10:96::{number}").parse()?,
    ];
    let port = Port::udp("echo", UDP, TARGET);
    let port = node_port.map_or(port.clone(), |number| port.node_port(number));
    let service = Service::new(name, &ips, &[port]);
    let mut documents = vec![service.to_yaml()];
    documents.extend(service.slices(&endpoints(&[pod])));
    world.manifests.write(&format!("{name}.yaml"), &documents)
}

#[test]
fn a_conversation_follows_a_node_port_to_another_service() -> Result<()> {
    const PORT: u16 = 31099;
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("udpmoves")?;
    let [blue, green, _] = &world.web;
    echo(&world, ("blue", 91), Some(PORT), blue)?;
    echo(&world, ("green", 92), None, green)?;
    thread::sleep(Duration::from_secs(1));
    let mut clients = Vec::new();
    for target in world.at_n1(PORT) {
        let probe = Probe::Stream {
            target,
            connected: true,
            millis: 15_000,
        };
        clients.push(Client::start("node port", By::Packet, &world.outside, probe));
        clients.push(Client::of_host(&world, target, 15_000));
    }
    thread::sleep(Duration::from_secs(1));
    // Both go on serving: only the port is the other's now.
    echo(&world, ("blue", 91), None, blue)?;
    echo(&world, ("green", 92), Some(PORT), green)?;
    for client in clients {
        let (what, finding) = client.finding()?;
        ensure!(
            finding.names == [blue.name(), green.name()],
            "{what}: {finding:?}"
        );
    }
    Ok(())
}
