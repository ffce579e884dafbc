//! weir-ingress, HAProxy and nginx side by side, with the same routes to the same backend.
//!
//! ```text
//! arms.rs        the lab: client, backend and proxies, each in a network namespace
//! routes.rs      the routes, in the words of each proxy; peers/ has the rest of their configurations
//! proxies.rs     how each is started, and told of a change
//! rounds.rs      requests and handshakes at saturation, latency of one connection, in turn
//! tools.rs       wrk and h2load
//! handshakes.rs  new TLS connections, whole and resumed
//! client.rs      a client of HTTP/1.1 that says exactly what happened
//! memory.rs      at rest, and for an idle connection
//! changes.rs     from a change to the first right answer, under load
//! process.rs     CPU time and memory from /proc
//! report.rs      tables for people, JSON for programs
//! ```

mod arms;
mod changes;
mod client;
mod handshakes;
mod memory;
mod process;
mod proxies;
mod report;
mod rounds;
mod routes;
mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use weir_measure::machine::{self, Cpus};

use crate::arms::World;
use crate::handshakes::Certificate;
use crate::proxies::Setup;
use crate::report::Report;
use crate::rounds::{Fleet, Plan};

/// weir-ingress, HAProxy and nginx side by side.
#[derive(Parser)]
#[command(name = "weir-bench-ingress", max_term_width = 100)]
struct Flags {
    /// Two rounds of short blocks, few connections and changes: shows that it works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Rounds; every round runs every workload on every proxy
    #[arg(long, value_name = "N", default_value_t = 12)]
    rounds: usize,
    /// Length of a block, seconds
    #[arg(long, value_name = "S", default_value_t = 2)]
    block: u64,
    /// Routes of the proxies that have many
    #[arg(long, value_name = "N", default_value_t = 5000)]
    routes: usize,
    /// Idle connections
    #[arg(long, value_name = "N", default_value_t = 5000)]
    idle: usize,
    /// Changes of a route
    #[arg(long, value_name = "N", default_value_t = 50)]
    changes: usize,
    /// Requests a second while routes change
    #[arg(long, value_name = "N", default_value_t = 500)]
    rate: u32,
    /// Threads that serve, of each proxy; all on one CPU
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: usize,
    /// CPU for the proxies [default: the last one; everything else stays on the others]
    #[arg(long, value_name = "CPU")]
    cpu: Option<usize>,
    /// weir-ingress
    #[arg(long, value_name = "FILE", env = "WEIR_INGRESS_BIN")]
    weir: PathBuf,
    /// Only what is said here [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Write all samples to a file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail if a goal is surely missed
    #[arg(long)]
    check: bool,
}

/// A part of the benchmark.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Part {
    /// Memory at rest and of idle connections
    Memory,
    /// Requests, handshakes and latency
    Rounds,
    /// Changes of a route
    Changes,
}

impl Flags {
    fn plan(&self) -> Plan {
        let quick = |full: usize, short: usize| if self.quick { short } else { full.max(1) };
        Plan {
            rounds: quick(self.rounds, 2),
            seconds: if self.quick { 1 } else { self.block.max(1) },
            routes: self.routes.max(1),
            idle: quick(self.idle, 200),
            changes: quick(self.changes, 6),
            rate: self.rate.max(1),
            workers: self.workers.max(1),
        }
    }

    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            eprintln!("weir-bench-ingress: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and reports; whether the goals may be met.
fn run(flags: &Flags) -> Result<bool> {
    if !rustix::process::geteuid().is_root() {
        bail!("needs root, for network namespaces: run it with sudo");
    }
    ensure!(
        flags.weir.is_file(),
        "there is no {}: build weir-ingress first",
        flags.weir.display()
    );
    weir_lab::clean_up_on_signals()?;
    memory::allow_many_files()?;
    let cpus = machine::place(flags.cpu)?;
    let plan = flags.plan();
    let mut report = Report::new(facts(flags, cpus)?, plan);
    let measured = measure(flags, cpus, &mut report);
    // What there is may have taken long.
    print!("{report}");
    if let Some(path) = &flags.json {
        std::fs::write(path, serde_json::to_string(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    measured?;
    Ok(!flags.check || report.goals_may_be_met())
}

fn measure(flags: &Flags, cpus: Cpus, report: &mut Report) -> Result<()> {
    let plan = report.plan;
    let certificate = Certificate::make()?;
    let setup = Setup {
        weir: &flags.weir,
        workers: plan.workers,
        cpu: cpus.measured,
        certificate: &certificate,
    };
    let mut world = World::build()?;
    if flags.wants(Part::Memory) {
        report.memory = memory::measure(&mut world, setup, plan)?;
    }
    let (rounds, changes) = (flags.wants(Part::Rounds), flags.wants(Part::Changes));
    if rounds || changes {
        let mut fleet = Fleet {
            one: if rounds {
                world.start_all(setup, 1)?
            } else {
                Vec::new()
            },
            many: world.start_all(setup, plan.routes)?,
        };
        if rounds {
            (report.blocks, report.latencies) = rounds::run(&world, &certificate, &fleet, plan)?;
        }
        if changes {
            report.changes = changes::measure(&world, &mut fleet.many, plan)?;
        }
    }
    world.remove()
}

/// What the numbers depend on.
fn facts(flags: &Flags, cpus: Cpus) -> Result<Vec<(String, String)>> {
    let pinning = format!(
        "proxies on CPU {}; load, backend and the benchmark on the {} other(s)",
        cpus.measured,
        cpus.count - 1
    );
    let mut facts = machine::describe(&pinning)?;
    let size = report::float(std::fs::metadata(&flags.weir)?.len()) / 1e6;
    let weir = version(Command::new(&flags.weir).arg("--version"))?;
    facts.push(machine::fact(
        "weir-ingress",
        &format!("{weir}, {size:.1} MB, {}", linking(&flags.weir)?),
    ));
    facts.push(machine::fact(
        "HAProxy",
        &version(Command::new("haproxy").arg("-v"))?,
    ));
    facts.push(machine::fact("nginx", &version(Command::new("nginx").arg("-v"))?));
    facts.push(machine::fact(
        "h2load",
        &version(Command::new("h2load").arg("--version"))?,
    ));
    facts.push(machine::fact("wrk", &version(Command::new("wrk").arg("-v"))?));
    Ok(facts)
}

/// The first line that a program says of itself.
fn version(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Ok(said.lines().next().unwrap_or("unknown").to_owned())
}

/// Whether a program is whole in itself: then its memory is managed by itself too, not by the system's C library.
fn linking(program: &Path) -> Result<&'static str> {
    let bytes = std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let interpreter = bytes.windows(6).take(4096).any(|six| six == b"/ld-li");
    Ok(if interpreter {
        "linked with the system's C library"
    } else {
        "static"
    })
}
