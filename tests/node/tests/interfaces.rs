//! Interfaces that come, change and go while the agent runs, or while it does not.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_lab::peer::connect::ConnectOptions;
use weir_lab::{Pod, clock};
use weir_node::services::{WEB, family};
use weir_node::{By, World, can_run, names};

/// The promise.
const WITHIN: Duration = Duration::from_secs(1);

/// How long until the packet path serves the pod. The promise is about the programs: they are there within a second. A
/// packet may take longer, as a neighbour that was asked for too early is asked for again a second later.
fn served_after(world: &World, pod: &Pod, links: usize) -> Result<Duration> {
    let begin = clock::now();
    let attached = clock::wait_until(WITHIN, || pins(world).len() == links);
    ensure!(attached, "{} after {WITHIN:?}: {:?}", pod.name(), pins(world));
    for target in WEB.tcp() {
        let options = ConnectOptions {
            timeout: Duration::from_millis(100),
            ..ConnectOptions::new(target, 1, 1)
        };
        let served = clock::wait_until(Duration::from_secs(5), || {
            By::Packet
                .connect(pod, &options)
                .is_ok_and(|report| report.is_clean())
        });
        ensure!(served, "{} is not served, {}", pod.name(), family(target));
    }
    Ok(begin.elapsed())
}

/// Where the agent of node 1 pins its links.
fn links(world: &World) -> PathBuf {
    world.n1.bpffs().join("weir/v1/links")
}

/// The pins of links of interfaces on node 1.
fn pins(world: &World) -> Vec<String> {
    names(&links(world))
        .into_iter()
        .filter(|name| !name.starts_with("cgroup"))
        .collect()
}

fn assert_pins(world: &World, wanted: &[String], when: &str) -> Result<()> {
    let begin = clock::now();
    let mut found = Vec::new();
    let right = clock::wait_until(Duration::from_secs(3), || {
        found = pins(world);
        found == wanted
    });
    println!("{when}: {} pins after {:?}", found.len(), begin.elapsed());
    ensure!(right, "{when}: {found:?}, not {wanted:?}");
    Ok(())
}

/// Gives the node's end of a pod's veth its addresses and routes again, which it lost on its way.
fn readdress(pod: &Pod, interface: &str) -> Result<()> {
    let (gateway4, gateway6) = pod.node().gateway();
    let (v4, v6) = (pod.v4(), pod.v6());
    pod.node().ip(&format!(
        "address replace {gateway4}/32 dev {interface}\n\
         address replace {gateway6}/128 dev {interface} nodad\n\
         link set {interface} up\n\
         route replace {v4}/32 dev {interface}\n\
         route replace {v6}/128 dev {interface}\n"
    ))
}

#[test]
fn a_pod_comes_and_goes() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("ifpod")?;
    let before = pins(&world);
    println!("pins: {before:?}");
    for round in 0..5 {
        let name = format!("late-{round}");
        let pod = world.n1.pod(
            &name,
            &format!("10.244.1.{}", 20 + round),
            &format!("fd00:10:244:1::{}", 20 + round),
        )?;
        let after = served_after(&world, &pod, before.len() + 2)?;
        println!("{name} served after {after:?}");
        pod.unplug()?;
        assert_pins(&world, &before, "the pod has gone")?;
    }
    Ok(())
}

#[test]
fn an_interface_is_renamed_and_moved_away_and_back() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let world = World::new("ifmove")?;
    let before = pins(&world);
    let pod = &world.sandbox;
    let old = pod.host_interface();
    println!(
        "before: served after {:?}",
        served_after(&world, pod, before.len())?
    );
    world
        .n1
        .ip(&format!("link set {old} down\nlink set {old} name renamed0\n"))?;
    readdress(pod, "renamed0")?;
    println!(
        "renamed: served after {:?}",
        served_after(&world, pod, before.len())?
    );
    ensure!(
        pins(&world) == before,
        "a new name is the same interface: {:?}",
        pins(&world)
    );
    for round in 0..3 {
        let there = world.n2.netns().name();
        world.n1.ip(&format!("link set renamed0 netns {there}\n"))?;
        let gone = clock::wait_until(Duration::from_secs(3), || pins(&world).len() + 2 == before.len());
        ensure!(
            gone,
            "the pins of an interface that moved away stay: {:?}",
            pins(&world)
        );
        // Its index may be another one when it is back.
        world
            .n2
            .ip(&format!("link set renamed0 netns {}\n", world.n1.netns().name()))?;
        readdress(pod, "renamed0")?;
        let after = served_after(&world, pod, before.len())?;
        println!("round {round}: moved away and back, served after {after:?}");
    }
    Ok(())
}

#[test]
fn two_hundred_interfaces_leave_no_pins() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let mut world = World::new("ifchurn")?;
    let before = pins(&world);
    let there = world.n2.netns().name().to_owned();
    let begin = clock::now();
    for round in 0..20 {
        let (mut add, mut delete) = (String::new(), String::new());
        for number in 0..10 {
            writeln!(
                add,
                "link add churn{number} type veth peer name far{number} netns {there}"
            )?;
            writeln!(add, "link set churn{number} up")?;
            writeln!(delete, "link delete churn{number}")?;
        }
        world.n1.ip(&add)?;
        // Some live long enough to be served, some do not.
        std::thread::sleep(Duration::from_millis(round * 10));
        world.n1.ip(&delete)?;
    }
    println!("200 interfaces came and went in {:?}", begin.elapsed());
    assert_pins(&world, &before, "all have gone")?;
    let after = served_after(&world, &world.sandbox, before.len())?;
    println!("a pod is still served after {after:?}");
    let log = world.weir()?.log();
    let errors: Vec<_> = log
        .lines()
        .filter(|line| line.contains("ERROR") || line.contains("WARN"))
        .collect();
    println!(
        "{} warnings and errors in the agent's log {:?}",
        errors.len(),
        errors.first()
    );
    ensure!(world.weir()?.is_running(), "the agent has ended");
    Ok(())
}

#[test]
fn what_went_while_no_agent_ran_is_cleaned_up() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let mut world = World::new("ifdown")?;
    let before = pins(&world);
    let pod = world.n1.pod("late", "10.244.1.20", "fd00:10:244:1::20")?;
    println!("served after {:?}", served_after(&world, &pod, before.len() + 2)?);
    world.weir()?.kill9()?;
    pod.unplug()?;
    let other = world.n1.pod("later", "10.244.1.21", "fd00:10:244:1::21")?;
    world.weir()?.restart()?;
    let after = served_after(&world, &other, before.len() + 2)?;
    println!("new while no agent ran: served after {after:?}");
    other.unplug()?;
    assert_pins(&world, &before, "both have gone")
}
