//! The restart contract: an agent that dies, however and whenever, is not missed; one that starts breaks nothing.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use weir_lab::peer::Report;
use weir_lab::peer::connect::ConnectOptions;
use weir_lab::{Manifests, Process, clock, weir_binary};
use weir_node::counters::Counters;
use weir_node::services::{WEB, family};
use weir_node::trace::map_writes;
use weir_node::{By, Load, World, can_run, figures, services_json};

/// The maps that only agents write: a restart with nothing changed writes none of them.
const OF_AGENTS: [&str; 10] = [
    "SERVICES",
    "BACKENDS",
    "BACKEND_STATE",
    "CURSORS",
    "SERVICE_NAMES",
    "AFFINITY_BACKENDS",
    "ADDRESSES",
    "ADDRESS_FILTER",
    "CONFIG",
    "META",
];

/// 200 new connections a second and 100 long ones, by both hooks and a node port, in both families.
struct Traffic {
    loads: Vec<(&'static str, Load)>,
    before: Counters,
}

impl Traffic {
    fn start(world: &World) -> Result<Self> {
        let [v4, v6] = WEB.tcp();
        let [node_port, _] = world.at_n1(WEB.node_tcp());
        let new = |target, rate| ConnectOptions {
            rate,
            ..ConnectOptions::new(target, 0, 20)
        };
        let long = |target, count| ConnectOptions {
            hold: Duration::from_secs(600),
            ..ConnectOptions::new(target, count, count)
        };
        let before = clients(world)?;
        let loads = vec![
            ("new, socket hook", By::Socket.start(&world.client, &new(v4, 70))?),
            (
                "new, packet path, IPv6",
                By::Packet.start(&world.sandbox, &new(v6, 70))?,
            ),
            (
                "new, node port",
                By::Packet.start(&world.outside, &new(node_port, 60))?,
            ),
            (
                "long, socket hook, IPv6",
                By::Socket.start(&world.client, &long(v6, 30))?,
            ),
            (
                "long, packet path",
                By::Packet.start(&world.sandbox, &long(v4, 40))?,
            ),
            (
                "long, node port",
                By::Packet.start(&world.outside, &long(node_port, 30))?,
            ),
        ];
        // The long ones are all there before the first kill.
        thread::sleep(Duration::from_millis(500));
        Ok(Self { loads, before })
    }

    /// Ends it; nothing may have failed, and no SYN may have been lost.
    fn assert_clean(self, world: &World) -> Result<()> {
        let mut reports: Vec<(&str, Report)> = Vec::new();
        for (what, load) in self.loads {
            let report = load.stop()?;
            figures(what, &report);
            reports.push((what, report));
        }
        let counters = clients(world)?.since(self.before);
        println!("all clients together: {counters:?}");
        assert_turns("IPv4", &reports, |what| !what.contains("IPv6"))?;
        assert_turns("IPv6", &reports, |what| what.contains("IPv6"))?;
        for (what, report) in reports {
            ensure!(report.is_clean(), "{what}: {report:?}");
            let known = ["web-1", "web-2", "web-3"];
            ensure!(
                report.backends.keys().all(|name| known.contains(&name.as_str())),
                "{what}: {report:?}"
            );
            if what.starts_with("long") {
                ensure!(
                    report.messages > report.ok * 5,
                    "{what}: only {} messages",
                    report.messages
                );
            }
        }
        ensure!(counters.syn_retransmits == 0, "a SYN was lost");
        Ok(())
    }
}

/// Each connection took one turn, whoever ran or died meanwhile: the sums differ by one at most.
fn assert_turns(family: &str, reports: &[(&str, Report)], wanted: fn(&str) -> bool) -> Result<()> {
    let sums = ["web-1", "web-2", "web-3"].map(|name| -> u64 {
        let all = reports.iter().filter(|(what, _)| wanted(what));
        all.map(|(_, report)| report.backend(name)).sum()
    });
    println!("all {family} connections together: {sums:?}");
    let (least, most) = (sums.iter().min(), sums.iter().max());
    ensure!(
        most.zip(least).is_some_and(|(most, least)| most - least <= 1),
        "{family}: {sums:?}"
    );
    Ok(())
}

/// The counters of all clients of [`Traffic`].
fn clients(world: &World) -> Result<Counters> {
    let hosts = [world.client.host(), world.sandbox.host(), &world.outside];
    hosts
        .into_iter()
        .try_fold(Counters::default(), |sum, host| Ok(sum.plus(Counters::of(host)?)))
}

#[test]
fn a_hundred_kills_under_load() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let kills: u32 = match std::env::var("WEIR_KILLS") {
        Ok(text) => text.parse().context("WEIR_KILLS is not a number")?,
        Err(_) => 100,
    };
    let mut world = World::new("kills")?;
    let traffic = Traffic::start(&world)?;
    let begin = clock::now();
    let mut log = String::new();
    let mut died_ready = 0;
    world.weir()?.kill9()?;
    for kill in 0..kills {
        let mut agent = start_agent(&world)?;
        // Some die long before they are ready, some in the middle, some after.
        let pause = Duration::from_millis(u64::from(20 + kill * 37 % 800));
        thread::sleep(pause);
        ensure!(agent.is_running(), "the agent ended by itself: {}", agent.log());
        died_ready += u32::from(agent.log().contains("ready services"));
        agent.kill()?;
        log = agent.log();
    }
    println!(
        "{kills} kills in {} ms, of these {died_ready} after the agent was ready",
        begin.elapsed().as_millis()
    );
    world.weir()?.restart().with_context(|| log)?;
    traffic.assert_clean(&world)?;
    assert_even(&world)
}

/// An agent of node 1 beside the world's own.
fn start_agent(world: &World) -> Result<Process> {
    let mut command = Command::new(weir_binary()?);
    command.args(agent_arguments(world));
    world.n1.spawn(command)
}

fn agent_arguments(world: &World) -> Vec<String> {
    let node = &world.n1;
    [
        ("--node-name", node.name().to_owned()),
        ("--cgroup", node.cgroup().display().to_string()),
        ("--bpffs", node.bpffs().display().to_string()),
        ("--manifests", world.manifests.dir().display().to_string()),
    ]
    .into_iter()
    .fold(vec!["agent".to_owned()], |mut all, (flag, value)| {
        all.extend([flag.to_owned(), value]);
        all
    })
}

/// Still exact.
fn assert_even(world: &World) -> Result<()> {
    for target in WEB.tcp() {
        for by in By::BOTH {
            let report = by.connect(&world.client, &ConnectOptions::new(target, 300, 10))?;
            figures(&format!("afterwards, {by:?} hook, {}", family(target)), &report);
            ensure!(report.is_clean() && report.counts() == [100; 3], "{report:?}");
        }
    }
    Ok(())
}

#[test]
fn sigterm_leaves_the_data_plane_serving() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let mut world = World::new("term")?;
    let traffic = Traffic::start(&world)?;
    let begin = clock::now();
    world.weir()?.term()?;
    println!("SIGTERM took {} ms", begin.elapsed().as_millis());
    thread::sleep(Duration::from_secs(1));
    ensure!(!world.weir()?.is_running(), "the agent runs");
    let status = world.n1.weir(&["status"])?;
    ensure!(status.contains("not running"), "{status}");
    world.weir()?.restart()?;
    traffic.assert_clean(&world)
}

#[test]
fn a_restart_with_nothing_changed_writes_nothing() -> Result<()> {
    if !can_run(&["strace"]) {
        return Ok(());
    }
    let mut world = World::new("nowrite")?;
    assert_even(&world)?;
    world.weir()?.term()?;
    let before = services_json(&world.n1)?;
    let trace = world.lab.dir().join("trace");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-e", "trace=bpf,fcntl,dup", "-o"])
        .arg(&trace);
    command.arg(weir_binary()?).args(agent_arguments(&world));
    let mut agent = world.n1.spawn(command)?;
    let ready = clock::wait_until(Duration::from_secs(30), || agent.log().contains("ready services"));
    ensure!(ready, "not ready under strace: {}", agent.log());
    // Whatever would still be written is written now.
    thread::sleep(Duration::from_secs(2));
    end_traced(&mut agent)?;
    let writes = map_writes(&fs::read_to_string(&trace)?);
    println!("writes to maps by a restart: {writes:?}");
    let written: usize = OF_AGENTS.iter().filter_map(|map| writes.get(*map)).sum();
    let unknown = writes.keys().any(|name| name.starts_with("fd"));
    ensure!(written == 0, "the restart wrote rows: {writes:?}");
    ensure!(
        !unknown,
        "writes to a map that the trace does not name: {writes:?}"
    );
    ensure!(
        services_json(&world.n1)? == before,
        "the rows of Services differ after the restart"
    );
    Ok(())
}

/// Ends the agent under an strace, which ends with it.
fn end_traced(strace: &mut Process) -> Result<()> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", strace.id()))?;
    let agent = children
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok());
    let agent = agent
        .and_then(rustix::process::Pid::from_raw)
        .context("strace has no child")?;
    rustix::process::kill_process(agent, rustix::process::Signal::TERM)?;
    strace.wait(Duration::from_secs(10))?;
    Ok(())
}

#[test]
fn nothing_is_pruned_before_the_list_is_complete() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let mut world = World::new("noprune")?;
    world.weir()?.term()?;
    let all = world.lab.dir().join("all");
    fs::rename(world.manifests.dir(), &all)?;
    // The folder is not there: nothing is known, so nothing may be removed.
    let mut agent = start_agent(&world)?;
    thread::sleep(Duration::from_secs(2));
    println!("without its folder the agent runs: {}", agent.is_running());
    println!("{}", agent.log().lines().last().unwrap_or_default());
    assert_even(&world)?;
    fs::rename(&all, world.manifests.dir())?;
    if !agent.is_running() {
        agent = start_agent(&world)?;
    }
    let ready = clock::wait_until(Duration::from_secs(10), || agent.log().contains("ready services"));
    ensure!(ready, "not ready after the folder is back: {}", agent.log());
    assert_even(&world)
}

#[test]
fn a_second_agent_names_the_first() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let mut world = World::new("second")?;
    let mut second = start_agent(&world)?;
    let status = second.wait(Duration::from_secs(10))?;
    let log = second.log();
    println!("{status}: {}", log.trim());
    let first = world.weir()?.process().context("no agent")?.id();
    ensure!(!status.success(), "the second agent ended with success");
    ensure!(
        log.contains(&first.to_string()),
        "the second agent does not name process {first}: {log}"
    );
    ensure!(world.weir()?.is_running(), "the first agent has ended");
    assert_even(&world)
}

/// More than any change takes.
const MOST: u32 = 200;

/// Kills the agent at each call of bpf(2) in turn while it applies a change, until one run survives.
#[test]
fn death_at_each_step_of_a_change_leaves_the_old_or_the_new() -> Result<()> {
    if !can_run(&["strace"]) {
        return Ok(());
    }
    let mut world = World::new("steps")?;
    world.weir()?.term()?;
    let [web_1, web_2, web_3] = world.web.clone();
    let changes = [[&web_1, &web_2], [&web_2, &web_3]];
    WEB.write(&world.manifests, &changes[0])?;
    world.weir()?.restart()?;
    let begin = clock::now();
    for call in 1..=MOST {
        let new = changes[call as usize % 2];
        world.settled(WEB, &changes[(call as usize + 1) % 2])?;
        let pid = world.weir()?.process().context("no agent")?.id();
        let mut strace = trace_until(&world, pid, call)?;
        WEB.write(&world.manifests, &new)?;
        let died = clock::wait_until(Duration::from_millis(700), || {
            world.weir().is_ok_and(|weir| !weir.is_running())
        });
        for target in WEB.tcp() {
            for by in By::BOTH {
                let report = by.connect(&world.client, &ConnectOptions::new(target, 12, 3))?;
                if !(report.is_clean() && is_one_set(&report)) {
                    bail!(
                        "killed at call {call}, {by:?} hook, {}: {report:?}",
                        family(target)
                    );
                }
            }
        }
        strace.kill()?;
        if !died {
            world.settled(WEB, &new)?;
            println!(
                "{} calls of bpf(2) in a change, a death at each, in {} ms",
                call - 1,
                begin.elapsed().as_millis()
            );
            ensure!(
                call > 5,
                "only {} calls were seen: strace did not trace the agent",
                call - 1
            );
            return Ok(());
        }
        world.weir()?.restart()?;
        world
            .settled(WEB, &new)
            .with_context(|| format!("after the restart from a death at call {call}"))?;
    }
    bail!("a change takes more than {MOST} calls of bpf(2)")
}

fn trace_until(world: &World, pid: u32, call: u32) -> Result<Process> {
    let mut command = Command::new("strace");
    command.args(["-f", "-p", &pid.to_string(), "-e", "trace=bpf", "-e"]);
    command.arg(format!("inject=bpf:signal=KILL:when={call}"));
    let strace = world.n1.spawn(command)?;
    let attached = clock::wait_until(Duration::from_secs(5), || strace.log().contains("attached"));
    ensure!(attached, "strace does not attach: {}", strace.log());
    Ok(strace)
}

/// Old set or new set, not a mixture.
fn is_one_set(report: &Report) -> bool {
    let names: Vec<_> = report.backends.keys().map(String::as_str).collect();
    names == ["web-1", "web-2"] || names == ["web-2", "web-3"]
}

/// The folder's file is replaced while the agent is down: the new agent finds it, and only then changes rows.
#[test]
fn a_change_while_the_agent_is_down_is_made_up_for() -> Result<()> {
    if !can_run(&[]) {
        return Ok(());
    }
    let mut world = World::new("missed")?;
    world.weir()?.kill9()?;
    let [web_1, web_2, _] = world.web.clone();
    WEB.write(&world.manifests, &[&web_1, &web_2])?;
    let [target, _] = WEB.tcp();
    let report = By::Packet.connect(&world.client, &ConnectOptions::new(target, 30, 3))?;
    figures("agent down, file changed", &report);
    ensure!(report.is_clean() && report.counts() == [10; 3], "{report:?}");
    world.weir()?.restart()?;
    println!("made up for after {:?}", world.settled(WEB, &[&web_1, &web_2])?);
    let manifests: &Manifests = &world.manifests;
    manifests.remove(&WEB.file())?;
    world.settled_gone(WEB)
}
