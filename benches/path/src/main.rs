//! What a connection costs: directly between two pods, by weir's socket hook, by weir's packet path, by iptables.
//!
//! ```text
//! arms.rs     four nodes in network namespaces, one per way of getting there
//! worker.rs   the client and the server process of an arm
//! rounds.rs   short blocks in turn, so that a noisy neighbour meets every arm alike
//! hooks.rs    what each program cost during the connections (kernel statistics)
//! program/    what each program costs for a single packet (test runs)
//! report.rs   tables for people, JSON for programs
//! ```

mod arms;
mod hooks;
mod program;
mod report;
mod rounds;
mod sys;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use weir_measure::machine::{self, Cpus};

use crate::arms::Family;
use crate::report::Report;
use crate::rounds::Plan;

/// What a connection costs: directly, by weir's socket hook, by weir's packet path, by iptables.
#[derive(Parser)]
#[command(name = "weir-bench-path", max_term_width = 100)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
struct Flags {
    #[command(subcommand)]
    worker: Option<Worker>,
    /// Use IPv6 instead of IPv4
    #[arg(long)]
    ipv6: bool,
    /// Two rounds of short blocks: shows that it works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Rounds; every round runs every workload on every arm
    #[arg(long, value_name = "N", default_value_t = 24)]
    rounds: usize,
    /// Length of a block, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 500)]
    block: u64,
    /// Only the kernel programs by test runs: no nodes, no connections
    #[arg(long)]
    programs_only: bool,
    /// The kernel object
    #[arg(long, value_name = "FILE", env = "WEIR_BPF_OBJECT")]
    object: Option<PathBuf>,
    /// CPU for clients and servers [default: the last one; everything else stays on the others]
    #[arg(long, value_name = "CPU")]
    cpu: Option<usize>,
    /// The command to set up the iptables arm; ip6tables… with --ipv6
    #[arg(long, value_name = "COMMAND")]
    iptables: Option<String>,
    /// Write all samples to a file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail if request/response is surely below the goals: 0.98 of direct by the socket hook, 0.95 by tc
    #[arg(long)]
    check: bool,
}

/// What this program starts itself as.
#[derive(Subcommand)]
enum Worker {
    /// A client that takes jobs on its standard input
    #[command(hide = true)]
    Client(worker::ClientFlags),
    /// A server
    #[command(hide = true)]
    Server(worker::ServerFlags),
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let result = match &flags.worker {
        Some(Worker::Client(client)) => worker::client(client).map(|()| true),
        Some(Worker::Server(server)) => worker::server(server).map(|()| true),
        None => run(&flags),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            eprintln!("weir-bench-path: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and reports; whether the goals may be met.
fn run(flags: &Flags) -> Result<bool> {
    if !rustix::process::geteuid().is_root() {
        anyhow::bail!("needs root, for network namespaces and BPF: run it with sudo");
    }
    weir_lab::clean_up_on_signals()?;
    let family = if flags.ipv6 { Family::V6 } else { Family::V4 };
    let cpus = machine::place(flags.cpu)?;
    let pinning = format!(
        "client and server processes on CPU {}, the agents on the {} other(s)",
        cpus.measured,
        cpus.count - 1
    );
    let mut report = Report::new(machine::describe(&pinning)?, family);
    let jit = machine::read("/proc/sys/net/core/bpf_jit_enable");
    report.facts.push(machine::fact("BPF JIT", &jit));
    if !flags.programs_only {
        connections(flags, family, cpus, &mut report)?;
    }
    let object = object(flags);
    report.programs = program::measure(&object, cpus.measured, flags.quick)
        .with_context(|| format!("measuring the programs of {}", object.display()))?;
    print!("{report}");
    if let Some(path) = &flags.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(!flags.check || report.goals_may_be_met())
}

/// The four arms, round after round.
fn connections(flags: &Flags, family: Family, cpus: Cpus, report: &mut Report) -> Result<()> {
    let plan = if flags.quick {
        Plan::quick()
    } else {
        Plan::new(flags.rounds, flags.block)
    };
    report.plan = Some(plan);
    let mut lab = arms::build(family, cpus.measured, flags.iptables.as_deref())?;
    report.facts.extend(lab.facts()?);
    report.blocks = rounds::run(&mut lab.all, plan)?;
    report.hooks = hooks::measure(&mut lab.all, plan)?;
    lab.remove()
}

/// The kernel object: as named, or where `./x build` puts it.
fn object(flags: &Flags) -> PathBuf {
    flags
        .object
        .clone()
        .unwrap_or_else(|| weir_lab::workspace_root().join("target/weir.bpf.o"))
}
