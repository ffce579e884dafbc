//! What happens to the bytes: large packets, small links, fragments, checksums.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_lab::{Host, clock};
use weir_node::bulk::Bulk;
use weir_node::counters::Counters;
use weir_node::probe::Probe;
use weir_node::services::{BULK, BULK_HERE, BULK_THERE, REMOTE, SOLO, family};
use weir_node::{By, World, WorldOptions, can_run};

/// A link's MTU: below all others of the lab, above the least of IPv6.
const SMALL: u32 = 1300;

fn world(prefix: &str, no_offloads: bool) -> Result<World> {
    World::with(
        prefix,
        WorldOptions {
            no_offloads,
            ..WorldOptions::default()
        },
    )
}

/// Moves bytes both ways, and each must arrive as it was sent.
fn assert_exact(what: &str, by: By, host: &Host, target: SocketAddr, bytes: u64) -> Result<()> {
    for upload in [true, false] {
        let begin = clock::now();
        let finding = by.probe(
            host,
            &Probe::Bulk {
                target,
                bytes,
                upload,
            },
        )?;
        let way = if upload { "up" } else { "down" };
        let rate = u128::from(bytes) / begin.elapsed().as_micros().max(1);
        println!(
            "{what}, {by:?} hook, {target}: {bytes} bytes {way}, {rate} MB/s, wrong {}",
            finding.wrong_bytes
        );
        ensure!(finding.is_clean(1), "{what}, {target}, {way}: {finding:?}");
    }
    Ok(())
}

/// Nobody in the lab got a packet with a wrong checksum.
fn assert_checksums(world: &World) -> Result<()> {
    for host in world.hosts() {
        let counters = Counters::of(host)?;
        ensure!(counters.bad_checksums == 0, "{} got {counters:?}", host.name());
    }
    println!("wrong checksums: none on {} machines", world.hosts().len());
    Ok(())
}

/// What a machine believes of the way to an address.
fn path_mtu(host: &Host, target: IpAddr) -> Result<String> {
    let route = host.sh(&format!("ip route get {target}"))?;
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu").skip(1);
    Ok(words.next().unwrap_or("of the interface").to_owned())
}

fn forget_path_mtus(world: &World) -> Result<()> {
    for host in world.hosts() {
        host.sh("ip -4 route flush cache; ip -6 route flush cache")?;
    }
    Ok(())
}

/// A small link: this machine may send only so much towards these networks.
struct SmallLink<'w> {
    host: &'w Host,
    routes: Vec<String>,
}

impl<'w> SmallLink<'w> {
    fn new(host: &'w Host, destinations: &[String]) -> Result<Self> {
        let mut routes = Vec::new();
        for destination in destinations {
            let family = if destination.contains(':') { "-6" } else { "-4" };
            // A route of the lab if there is one for just this, else that by which it goes now.
            let mut route = host.sh(&format!("ip {family} route show exact {destination}"))?;
            if route.trim().is_empty() {
                let (address, _) = destination.split_once('/').unwrap_or((destination, ""));
                let interface = host.sh(&format!("ip {family} route get {address} | grep -o 'dev [^ ]*'"))?;
                route = format!("{destination} {interface}");
            }
            let route: Vec<_> = route
                .lines()
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            let route = route
                .join(" ")
                .replace(" pref medium", "")
                .replace(" linkdown", "");
            host.sh(&format!("ip {family} route replace {route} mtu lock {SMALL}"))?;
            routes.push(format!("ip {family} route replace {route}"));
        }
        Ok(Self { host, routes })
    }

    fn remove(self) -> Result<()> {
        for route in self.routes {
            self.host.sh(&route)?;
        }
        Ok(())
    }
}

/// Networks of this machine alone.
fn only(host: &Host) -> [String; 2] {
    [format!("{}/32", host.v4()), format!("{}/128", host.v6())]
}

/// Bytes go through whole, and the client has found the small link if it is on the way up.
fn assert_found(what: &str, up: bool, client: &Host, target: SocketAddr) -> Result<()> {
    const BYTES: u64 = 3_000_000;
    assert_exact(&format!("small link {what}"), By::Packet, client, target, BYTES)?;
    let found = path_mtu(client, target.ip())?;
    println!("  the client's path MTU: {found}");
    // What is small only for the answers is the backend's to find.
    ensure!(up == (found == SMALL.to_string()), "{what}, {target}: {found}");
    Ok(())
}

fn path_mtu_is_found(prefix: &str, no_offloads: bool) -> Result<()> {
    let world = world(prefix, no_offloads)?;
    let [_, _, web_3] = &world.web;
    let _bulk = Bulk::serve(web_3, BULK)?;
    let to_pods_of_2 = ["10.244.2.0/24".to_owned(), "fd00:10:244:2::/64".to_owned()];
    let to_pods_of_1 = ["10.244.1.0/24".to_owned(), "fd00:10:244:1::/64".to_owned()];
    let (to_web_3, to_client, to_outside) = (only(web_3), only(&world.client), only(&world.outside));
    let (n1, n2) = (world.n1.host(), world.n2.host());
    // Where, towards whom, whether the client is inside, and whether it is small on the way up.
    for (what, host, destinations, inside, up) in [
        ("from node 1 to node 2", n1, &to_pods_of_2, true, true),
        ("from node 2 to the backend", n2, &to_web_3, true, true),
        ("from node 2 to node 1", n2, &to_pods_of_1, true, false),
        ("from node 1 to the client", n1, &to_client, true, false),
        ("from node 1 to node 2", n1, &to_pods_of_2, false, true),
        ("from node 2 to the backend", n2, &to_web_3, false, true),
        ("from node 1 to the outside", n1, &to_outside, false, false),
    ] {
        forget_path_mtus(&world)?;
        let link = SmallLink::new(host, destinations)?;
        let (client, targets) = if inside {
            (world.client.host(), BULK_THERE.tcp())
        } else {
            (&world.outside, world.at_n1(BULK_THERE.node_tcp()))
        };
        for target in targets {
            assert_found(what, up, client, target)?;
        }
        link.remove()?;
    }
    assert_checksums(&world)
}

#[test]
fn p5_path_mtu_is_found_with_offloads() -> Result<()> {
    if !can_run(&["ip"]) {
        return Ok(());
    }
    path_mtu_is_found("pmtuon", false)
}

#[test]
fn p5_path_mtu_is_found_without_offloads() -> Result<()> {
    if !can_run(&["ethtool"]) {
        return Ok(());
    }
    path_mtu_is_found("pmtuoff", true)
}

fn twenty_megabytes(prefix: &str, no_offloads: bool) -> Result<()> {
    arrive_as_sent(&world(prefix, no_offloads)?, 20_000_000)
}

fn arrive_as_sent(world: &World, bytes: u64) -> Result<()> {
    let [web_1, _, web_3] = &world.web;
    let _bulks = [Bulk::serve(web_1, BULK)?, Bulk::serve(web_3, BULK)?];
    for service in [BULK_HERE, BULK_THERE] {
        for target in service.tcp() {
            assert_exact("pod", By::Packet, &world.client, target, bytes)?;
            assert_exact("pod", By::Socket, &world.client, target, bytes)?;
        }
        for target in world.at_n1(service.node_tcp()) {
            assert_exact("outside", By::Packet, &world.outside, target, bytes)?;
        }
    }
    for target in BULK_HERE.tcp() {
        assert_exact("hairpin", By::Packet, web_1, target, bytes)?;
    }
    assert_checksums(world)
}

#[test]
fn p2_twenty_megabytes_arrive_as_sent_with_offloads() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    twenty_megabytes("bulkon", false)
}

/// IPv6 packets beyond 64 KiB inside of the node, whose header cannot say their length (Linux 5.19).
#[test]
fn p2_big_tcp_arrives_as_sent() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = world("bulkbig", false)?;
    let big = "gso_max_size 180000 gro_max_size 180000";
    for pod in world.pods() {
        pod.sh(&format!("ip link set dev eth0 {big}"))?;
        pod.node()
            .sh(&format!("ip link set dev {} {big}", pod.host_interface()))?;
    }
    for host in [world.n1.host(), world.n2.host(), &world.outside] {
        host.sh(&format!("ip link set dev eth0 {big}"))?;
    }
    // The kernel forwards them at some 2 MB/s between veths, weir or not: it refuses most as too big, and TCP sends them again.
    arrive_as_sent(&world, 2_000_000)
}

#[test]
fn p1_twenty_megabytes_arrive_as_sent_without_offloads() -> Result<()> {
    if !can_run(&["ethtool"]) {
        return Ok(());
    }
    twenty_megabytes("bulkoff", true)
}

fn datagrams(prefix: &str, no_offloads: bool) -> Result<()> {
    let world = world(prefix, no_offloads)?;
    let [web_1, ..] = &world.web;
    let local = SOLO.udp().map(|target| (world.client.host(), target, true));
    let remote = REMOTE.udp().map(|target| (world.client.host(), target, true));
    let hairpin = SOLO.udp().map(|target| (web_1.host(), target, true));
    let outside_local = world
        .at_n1(SOLO.node_udp())
        .map(|target| (&world.outside, target, false));
    let outside_remote = world
        .at_n1(REMOTE.node_udp())
        .map(|target| (&world.outside, target, false));
    for (host, target, pod) in [local, remote, hairpin, outside_local, outside_remote]
        .into_iter()
        .flatten()
    {
        for size in [1, 1_400, 1_473, 8_000, 40_000] {
            for connected in [false, true] {
                for by in By::BOTH {
                    if by == By::Socket && !pod {
                        continue;
                    }
                    let probe = Probe::Datagrams {
                        target,
                        size,
                        count: 20,
                        connected,
                    };
                    let finding = by.probe(host, &probe)?;
                    ensure!(
                        finding.is_clean(20),
                        "{} {by:?} {probe:?}: {finding:?}",
                        host.name()
                    );
                }
            }
        }
        println!(
            "{} to {target}, {}: 1 to 40000 bytes, there and back",
            host.name(),
            family(target)
        );
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_checksums(&world)
}

#[test]
fn p4_fragments_arrive_with_offloads() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    datagrams("fragon", false)
}

#[test]
fn p4_fragments_arrive_without_offloads() -> Result<()> {
    if !can_run(&["ethtool"]) {
        return Ok(());
    }
    datagrams("fragoff", true)
}
