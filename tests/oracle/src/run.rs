//! A run over many states.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::runtime::Runtime;
use weir_lab::clock;

use crate::api::Writer;
use crate::compare::{Compared, Findings, Judge, Sources};
use crate::expected::{Expected, Verdict};
use crate::marker;
use crate::objects::{self, Objects};
use crate::outcome::Answer;
use crate::places::Client;
use crate::probes::{self, By};
use crate::state::State;
use crate::wire::{Ask, Batch, Said};
use crate::world::{Parts, Proxy, World};

/// Probes of a state.
const PROBES: usize = 26;

/// How long a proxy may take to follow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Differences that a run shows before it ends.
const ENOUGH: usize = 20;

/// What a run is asked.
pub struct Options {
    /// The first state.
    pub seed: u64,
    /// How many.
    pub states: u64,
    /// Programs, and the API server.
    pub parts: Parts,
    /// Where the objects of states with differences are written.
    pub folder: PathBuf,
}

/// What a run has seen.
#[derive(Default)]
pub struct Tally {
    /// States.
    pub states: u64,
    /// Probes, each of which was made in both worlds.
    pub probes: usize,
    /// Probes whose answers differ, and no rule says so.
    pub different: usize,
    connections: usize,
    stared: usize,
    late: usize,
    listed: BTreeMap<usize, usize>,
    answers: BTreeMap<&'static str, usize>,
}

/// Runs, and says what came of it.
pub fn run(options: &Options) -> Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut writer = runtime.block_on(Writer::connect(&options.parts.kubeconfig))?;
    // kube-proxy wants to know its Node before it begins.
    let mut generation = 0;
    let first = State::number(options.seed);
    runtime.block_on(writer.write(objects::objects(&first), generation))?;
    let worlds = [Proxy::KubeProxy, Proxy::Weir].map(|proxy| World::start(proxy, &options.parts));
    let [kube, weir] = worlds;
    let expected = Expected::read()?;
    let mut judge = Judge {
        worlds: [kube?, weir?],
        expected,
        sources: Sources::default(),
    };
    let (begin, mut tally) = (clock::now(), Tally::default());
    for number in (options.seed..).take(usize::try_from(options.states)?) {
        let state = State::number(number);
        let objects = objects::objects(&state);
        generation = generation.wrapping_add(1);
        follow(&runtime, &mut writer, &mut judge, (&state, &objects, generation))?;
        let findings = judge.judge(&state, &probes::probes(&state, PROBES))?;
        tally.add(&findings);
        report(options, (&state, &objects), &findings)?;
        if tally.states % 100 == 0 {
            eprintln!("oracle: {}", tally.line(begin));
        }
        if tally.different >= ENOUGH {
            eprintln!("oracle: that is enough");
            break;
        }
    }
    eprintln!("{}", tally.summary(begin, &judge.expected));
    Ok(tally)
}

/// Writes the state, and waits until both proxies have it.
fn follow(
    runtime: &Runtime,
    writer: &mut Writer,
    judge: &mut Judge,
    (state, objects, generation): (&State, &Objects, u16),
) -> Result<()> {
    let written = runtime.block_on(writer.write(objects.clone(), generation));
    written.with_context(|| format!("state {}", state.number))?;
    let asks = [false, true].map(|v6| Ask {
        target: marker::target(generation, v6).into(),
        udp: false,
        connected: true,
        from: vec![std::net::SocketAddr::new(Client::PodPacket.primary(v6), 0)],
    });
    let batch = Batch {
        timeout_ms: 300,
        asks: asks.to_vec(),
    };
    let wanted = format!(
        "{} {} ",
        marker::place(state.zone).name(),
        marker::endpoint_port(generation)
    );
    let mut waiting = [true; 2];
    let begin = clock::now();
    while waiting.contains(&true) {
        for (world, waits) in judge
            .worlds
            .iter_mut()
            .zip(&mut waiting)
            .filter(|(_, waits)| **waits)
        {
            world.tell(Client::PodPacket, &batch)?;
            let said = world.hear(Client::PodPacket)?;
            let follows = |said: &Said| matches!(said, Said::Answer(text) if text.starts_with(&wanted));
            *waits = !said.iter().flatten().all(follows);
        }
        if begin.elapsed() > PATIENCE {
            let logs = judge.worlds.each_ref().map(|world| tail(&world.log()));
            bail!(
                "state {} is not followed (kube-proxy, weir: {waiting:?})\n{}",
                state.number,
                logs.join("\n---\n")
            );
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines
        .get(lines.len().saturating_sub(12)..)
        .unwrap_or_default()
        .join("\n")
}

/// Says what differs, with all that is needed to try it again.
fn report(options: &Options, (state, objects): (&State, &Objects), findings: &Findings) -> Result<()> {
    let is_different = |compared: &&Compared| compared.verdict == Verdict::Different;
    let different: Vec<_> = findings.compared.iter().filter(is_different).collect();
    for compared in &findings.late {
        eprintln!(
            "\noracle: state {}: late, the same half a second later\n{}",
            state.number,
            describe(state, compared)
        );
    }
    if different.is_empty() {
        return Ok(());
    }
    let path = options.folder.join(format!("state-{}.yaml", state.number));
    fs::create_dir_all(&options.folder)?;
    fs::write(&path, objects::yaml(objects)).with_context(|| format!("cannot write {}", path.display()))?;
    for compared in &different {
        let service = compared.probe.service(state);
        let own = service
            .map(|service| of_service(objects, &service.name))
            .unwrap_or_default();
        eprintln!(
            "\noracle: state {}: DIFFERENT\n{}{}",
            state.number,
            describe(state, compared),
            objects::yaml(&own)
        );
    }
    eprintln!(
        "oracle: all objects: {}; again: ./x test oracle --seed {} --states 1, with its history --seed {} --states 21",
        path.display(),
        state.number,
        state.number.saturating_sub(20)
    );
    Ok(())
}

fn of_service(objects: &Objects, name: &str) -> Objects {
    let prefix = format!("{name}-v");
    let own = objects
        .iter()
        .filter(|(key, _)| key.1 == name || key.1.starts_with(&prefix));
    own.map(|(key, object)| (key.clone(), object.clone())).collect()
}

fn describe(state: &State, compared: &Compared) -> String {
    let Compared {
        probe, kube, weir, ..
    } = compared;
    let protocol = match probe.by {
        By::Tcp => "tcp",
        By::Udp => "udp",
        By::UdpSendto => "udp (sendto)",
    };
    let service = probe.service(state);
    let name = service.map_or("nobody", |service| service.name.as_str());
    format!(
        "  {:?} asks {:?} {}/{protocol} of {name}; the node is in {}\n  kube-proxy: {kube}\n  weir:       {weir}\n",
        probe.client, probe.frontend, probe.target, state.zone
    )
}

impl Tally {
    fn add(&mut self, findings: &Findings) {
        self.states += 1;
        self.probes += findings.compared.len();
        self.connections += findings.connections;
        self.stared += findings.stared;
        self.late += findings.late.len();
        for compared in &findings.compared {
            match &compared.verdict {
                Verdict::Same => {}
                Verdict::Listed(rules) => {
                    for rule in rules {
                        *self.listed.entry(*rule).or_default() += 1;
                    }
                }
                Verdict::Different => self.different += 1,
            }
            for answer in &compared.kube.answers {
                if let Answer::Other(text) = answer {
                    eprintln!("oracle: what is this? {text}: {:?}", compared.probe);
                }
                *self.answers.entry(kind(answer)).or_default() += 1;
            }
        }
    }

    fn line(&self, begin: Instant) -> String {
        let seconds = begin.elapsed().as_secs_f64();
        let each = seconds / f64::from(u32::try_from(self.states.max(1)).unwrap_or(u32::MAX));
        format!(
            "{} states, {} probes, {} connections in each world, {} looked at twice, {} late, {} different; {each:.2} s a state",
            self.states, self.probes, self.connections, self.stared, self.late, self.different
        )
    }

    fn summary(&self, begin: Instant, expected: &Expected) -> String {
        let mut text = format!("\noracle: {}\nkube-proxy's answers:", self.line(begin));
        for (kind, count) in &self.answers {
            let _ = write!(text, " {kind} {count}");
        }
        for (at, rule) in expected.difference.iter().enumerate() {
            let count = self.listed.get(&at).copied().unwrap_or(0);
            let _ = write!(text, "\n{count:>8} differ as listed: {}", rule.reason);
        }
        text
    }
}

fn kind(answer: &Answer) -> &'static str {
    match answer {
        Answer::Served { .. } => "endpoint",
        Answer::Refused => "refused",
        Answer::Silent => "silence",
        Answer::Unreachable => "unreachable",
        Answer::NoRoute => "passed on",
        Answer::Other(_) => "other",
    }
}
