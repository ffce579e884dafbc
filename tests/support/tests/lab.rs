//! The lab itself: its machines reach each other, and nothing of it stays.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do; the lint's exception covers test functions only"
)]

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use weir_lab::peer::connect::ConnectOptions;
use weir_lab::{Host, Lab, Node, NodeOptions, Pod, PodNetwork, clock, require_root};

const PORT: u16 = 8080;

struct World {
    lab: Lab,
    nodes: [Node; 2],
    pods: [Pod; 5],
    outside: Host,
}

fn world(prefix: &str, pods: PodNetwork) -> World {
    let lab = Lab::new(prefix).unwrap();
    let options = || NodeOptions {
        pods,
        ..NodeOptions::default()
    };
    let nodes = [
        lab.node("n1", options()).unwrap(),
        lab.node("n2", options()).unwrap(),
    ];
    let [n1, n2] = &nodes;
    let pods = [
        n1.pod("web-1", "10.244.1.2", "fd00:10:244:1::2").unwrap(),
        n1.pod("web-2", "10.244.1.3", "fd00:10:244:1::3").unwrap(),
        n2.pod("web-3", "10.244.2.2", "fd00:10:244:2::2").unwrap(),
        n1.pod("client-1", "10.244.1.4", "fd00:10:244:1::4").unwrap(),
        n2.pod("client-2", "10.244.2.3", "fd00:10:244:2::3").unwrap(),
    ];
    let outside = lab.outside("client").unwrap();
    World {
        lab,
        nodes,
        pods,
        outside,
    }
}

fn assert_reaches(from: &Host, to: &Host, seen_as: Option<IpAddr>) {
    for address in to.addresses() {
        for udp in [false, true] {
            let options = ConnectOptions {
                udp,
                timeout: Duration::from_secs(2),
                ..ConnectOptions::new(SocketAddr::new(address, PORT), 3, 1)
            };
            let report = from.connect(&options).unwrap();
            let path = format!("{} -> {address} udp={udp}: {report:?}", from.name());
            assert!(report.is_clean(), "{path}");
            assert_eq!(report.backend(to.name()), 3, "{path}");
            if let Some(v4) = seen_as
                && address.is_ipv4()
            {
                assert_eq!(report.seen_as.get(&v4.to_string()), Some(&3), "{path}");
            }
        }
    }
}

fn assert_all_paths(world: &World) {
    let [web_1, web_2, web_3, client_1, client_2] = &world.pods;
    let _servers: Vec<_> = [web_1, web_2, web_3]
        .map(|pod| pod.serve(PORT, PORT).unwrap())
        .into();
    for server in [web_1, web_2, web_3] {
        for client in [client_1, client_2] {
            assert_reaches(client, server, Some(client.v4().into()));
        }
        for node in &world.nodes {
            assert_reaches(node, server, None);
        }
    }
    let _on_node = world.nodes[0].serve(PORT, PORT).unwrap();
    assert_reaches(&world.outside, &world.nodes[0], Some(world.outside.v4().into()));
    assert_reaches(client_2, &world.nodes[0], Some(client_2.v4().into()));
}

#[test]
fn pods_reach_each_other_point_to_point() {
    if !require_root() {
        return;
    }
    let start = clock::now();
    let world = world("labptp", PodNetwork::PointToPoint);
    let took = start.elapsed();
    println!("two nodes, five pods, one outside: {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_all_paths(&world);
}

#[test]
fn pods_reach_each_other_over_a_bridge() {
    if !require_root() {
        return;
    }
    assert_all_paths(&world("labbridge", PodNetwork::Bridge));
}

#[test]
fn a_client_counts_errors_by_kind_and_is_fast() {
    if !require_root() {
        return;
    }
    let world = world("labfast", PodNetwork::PointToPoint);
    let [web_1, _, web_3, client, _] = &world.pods;
    let target = SocketAddr::new(web_3.v4().into(), PORT);

    let refused = client.connect(&ConnectOptions::new(target, 4, 2)).unwrap();
    assert_eq!((refused.attempted, refused.ok, refused.errors.refused), (4, 0, 4));
    let udp = ConnectOptions {
        udp: true,
        connected: true,
        ..ConnectOptions::new(target, 1, 1)
    };
    assert_eq!(client.connect(&udp).unwrap().errors.refused, 1);

    let _server = web_3.serve(PORT, PORT).unwrap();
    let fast = client.connect(&ConnectOptions::new(target, 3000, 32)).unwrap();
    println!("3000 connections: {} ms, {:?}", fast.elapsed_ms, fast.latency);
    assert!(fast.is_clean(), "{fast:?}");

    let mut source = ConnectOptions::new(target, 1, 1);
    source.source = Some(SocketAddr::new(client.v4().into(), 4242));
    assert!(client.connect(&source).unwrap().is_clean());

    // A held connection sees its server die.
    let server = web_1.serve(PORT, PORT).unwrap();
    let held = ConnectOptions {
        hold: Duration::from_secs(30),
        progress: Duration::from_millis(20),
        ..ConnectOptions::new(SocketAddr::new(web_1.v6().into(), PORT), 10, 1)
    };
    let long = client.start_client(&held).unwrap();
    assert!(clock::wait_until(Duration::from_secs(5), || {
        long.snapshot().is_some_and(|report| report.messages > 20)
    }));
    drop(server);
    let broken = long.wait(Duration::from_secs(5)).unwrap();
    assert_eq!(broken.ok, 10);
    assert_eq!(broken.errors.reset + broken.errors.closed, 10, "{broken:?}");
    assert_eq!(broken.wrong_backend, 0);
}

#[test]
fn a_process_is_in_the_namespace_and_the_cgroup() {
    if !require_root() {
        return;
    }
    let world = world("labplace", PodNetwork::PointToPoint);
    let [pod, ..] = &world.pods;
    let cgroup = pod.sh("cat /proc/self/cgroup").unwrap();
    let suffix = format!("weir-lab-{}/n1/web-1", world.lab.id());
    assert!(
        cgroup
            .lines()
            .any(|line| line.starts_with("0::") && line.ends_with(&suffix)),
        "{cgroup}"
    );
    assert!(
        pod.sh("ip -4 address show eth0")
            .unwrap()
            .contains("10.244.1.2/32")
    );
    let seen = pod
        .run(|| fs::read_to_string("/proc/thread-self/net/fib_trie").unwrap())
        .unwrap();
    assert!(seen.contains("10.244.1.2"));
    pod.set_offloads("eth0", false).unwrap();
    assert!(
        pod.sh("ethtool -k eth0")
            .unwrap()
            .contains("tx-checksumming: off")
    );
}

/// All that a lab with this name has left, by asking the kernel.
fn traces(prefix: &str) -> Vec<String> {
    let mut found: Vec<String> = fs::read_to_string("/proc/self/mounts")
        .unwrap()
        .lines()
        .filter(|line| line.contains(prefix))
        .map(str::to_owned)
        .collect();
    let mut roots = [
        "/run/netns",
        "/run/weir-lab",
        "/var/lib/weir-lab",
        "/sys/fs/cgroup",
    ]
    .map(PathBuf::from)
    .to_vec();
    // The hierarchies below it, one for each controller with cgroup v1.
    roots.extend(
        fs::read_dir("/sys/fs/cgroup")
            .unwrap()
            .flatten()
            .map(|entry| entry.path()),
    );
    for root in roots.into_iter().filter(|path| path.is_dir()) {
        found.extend(
            fs::read_dir(root)
                .unwrap()
                .flatten()
                .map(|entry| entry.path().display().to_string())
                .filter(|path| path.contains(prefix)),
        );
    }
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let status = fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        // A dead process waits here until its parent, which may be PID 1, asks for its exit code.
        let dead = stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('Z'));
        if status.contains(prefix) && !dead {
            found.push(process.path().display().to_string());
        }
    }
    found
}

#[test]
fn nothing_stays() {
    if !require_root() {
        return;
    }
    let world = world("labgone", PodNetwork::Bridge);
    let server = world.pods[0].serve(PORT, PORT).unwrap();
    let mut sleeper = Command::new("sh");
    sleeper.args(["-c", "sleep 1000 & sleep 1000"]);
    let sleeper = world.nodes[0].spawn(sleeper).unwrap();
    fs::write(world.lab.disk().unwrap().join("file"), "").unwrap();
    world.lab.make_cgroups1(&world.nodes[0]).unwrap();
    assert!(traces("labgone").len() > 5);
    world.lab.remove().unwrap();
    assert_eq!(traces("labgone"), Vec::<String>::new());
    drop((server, sleeper));
}

#[test]
fn leftovers_of_a_killed_run_are_swept() {
    if !require_root() {
        return;
    }
    // This test again as a child that makes a lab and is killed.
    if std::env::var_os("LAB_VICTIM").is_some() {
        let world = world("labswept", PodNetwork::PointToPoint);
        let _server = world.pods[0].serve(PORT, PORT).unwrap();
        fs::write(PathBuf::from("/run/weir-lab/labswept.ready"), "").unwrap();
        std::thread::sleep(Duration::from_secs(60));
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leftovers_of_a_killed_run_are_swept"])
        .env("LAB_VICTIM", "1")
        .spawn()
        .unwrap();
    let ready = Path::new("/run/weir-lab/labswept.ready");
    assert!(clock::wait_until(Duration::from_secs(20), || ready.exists()));
    fs::remove_file(ready).unwrap();
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(traces("labswept").len() > 5);
    weir_lab::sweep("labswept").unwrap();
    assert_eq!(traces("labswept"), Vec::<String>::new());
}
