//! What a program costs for one packet, by `BPF_PROG_TEST_RUN`.
//!
//! A test run gives each repetition the packet that the one before left. So that every repetition does the whole work,
//! translated packets go in circles:
//!
//! ```text
//! known flow   C → A   becomes   C → B   becomes   C → A …     A and B are each other's backend
//! new flow     C → R:1 becomes   C → R:2 becomes   C → R:3 …   each port is a Service, its backend the next port
//! ```
//!
//! Addresses and ports change each time, and both checksums with them. What a test run does not show is a packet that
//! lies in pieces or is shared, as those of local sockets are: `hooks.rs` has those.

mod packet;
mod rows;

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use aya::EbpfLoader;
use aya::programs::SchedClassifier;
use proxy_agent::kernel::for_this_kernel;
use proxy_common::Protocol;
use serde::Serialize;
use weir_measure::{machine, stats};

use crate::arms::Family;
use crate::program::packet::Packet;
use crate::program::rows::{RING, Rows};
use crate::sys;

/// The programs that are measured.
const PROGRAMS: [&str; 2] = [INGRESS, EGRESS];
const INGRESS: &str = "pod_ingress";
const EGRESS: &str = "pod_egress";

/// `TC_ACT_UNSPEC`: on to the next program, or through the stack.
const ON: u32 = u32::MAX;

/// Results of all test runs.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Programs {
    /// A run of a program that does nothing, already taken off the others.
    pub(crate) empty_nanos: f64,
    pub(crate) cases: Vec<Timing>,
    pub(crate) sizes: Vec<Size>,
}

/// One kind of packet.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Timing {
    pub(crate) program: &'static str,
    pub(crate) what: &'static str,
    pub(crate) family: Family,
    pub(crate) protocol: &'static str,
    /// Median over the rounds, without the empty program.
    pub(crate) nanos: f64,
    /// The fastest and the slowest round.
    pub(crate) range: (f64, f64),
}

/// How large a program is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Size {
    pub(crate) program: String,
    /// Instructions that the verifier looked at.
    pub(crate) verified: u32,
    /// Bytes of machine code.
    pub(crate) machine_code: u32,
}

/// What a packet is to the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Foreign,
    Known,
    New,
}

/// One kind of packet for one program.
struct Case {
    program: &'static str,
    kind: Kind,
    family: Family,
    protocol: Protocol,
}

impl Case {
    fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for (program, kind) in [
            (INGRESS, Kind::Foreign),
            (EGRESS, Kind::Foreign),
            (INGRESS, Kind::Known),
            (EGRESS, Kind::Known),
            (INGRESS, Kind::New),
        ] {
            for family in [Family::V4, Family::V6] {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    cases.push(Self {
                        program,
                        kind,
                        family,
                        protocol,
                    });
                }
            }
        }
        cases
    }

    fn what(&self) -> &'static str {
        match (self.kind, self.program) {
            (Kind::Foreign, _) => "not weir's",
            (Kind::New, _) => "new flow",
            (Kind::Known, INGRESS) => "known flow, forward",
            (Kind::Known, _) => "known flow, back",
        }
    }

    /// The packet of a round. New flows need a client port that no round had before.
    fn packet(&self, round: u16) -> Vec<u8> {
        let client = (rows::client(self.family), 40_000);
        let (source, destination) = match (self.kind, self.program) {
            (Kind::Foreign, _) => (client, (rows::stranger(self.family), 8080)),
            (Kind::Known, INGRESS) => (client, rows::pair(self.family)[0]),
            (Kind::Known, _) => (rows::pair(self.family)[1], client),
            (Kind::New, _) => (
                (rows::client(self.family), 41_000 + round),
                rows::ring(self.family, 0),
            ),
        };
        Packet {
            source,
            destination,
            protocol: self.protocol,
            syn: self.kind == Kind::New,
        }
        .bytes()
    }
}

/// Loads the object and runs all cases in turn, round after round.
pub(crate) fn measure(object: &Path, cpu: usize, quick: bool) -> Result<Programs> {
    machine::pin(cpu)?;
    let (rounds, repeat) = if quick { (3, 10_000) } else { (11, 200_000) };
    let lab = weir_lab::Lab::new("bench-program")?;
    let node = lab.node("programs", weir_lab::NodeOptions::default())?;
    let ebpf = load(object, node.bpffs())?;
    let mut rows = Rows::open(node.bpffs())?;
    rows.write()?;
    let empty = sys::empty_classifier()?;
    let cases = Case::all();
    let mut empties = Vec::new();
    let mut nanos = vec![Vec::new(); cases.len()];
    for round in 0..rounds {
        empties.push(f64::from(
            sys::test_run(empty.as_fd(), &cases_first(&cases)?, repeat)?.nanos,
        ));
        for (case, nanos) in cases.iter().zip(&mut nanos) {
            let program = fd(&ebpf, case.program)?;
            let time = run(&program, case, round, repeat).with_context(|| {
                format!(
                    "{} for {}, {:?} {}",
                    case.program,
                    case.what(),
                    case.family,
                    case.protocol
                )
            })?;
            nanos.push(f64::from(time));
            if case.kind == Kind::New {
                rows.forget_flows()?;
            }
        }
    }
    let empty_nanos = stats::median(&empties);
    let timings = cases
        .iter()
        .zip(&nanos)
        .map(|(case, nanos)| timing(case, nanos, empty_nanos))
        .collect();
    let sizes = PROGRAMS
        .iter()
        .map(|name| size(&ebpf, name))
        .collect::<Result<_>>()?;
    drop(ebpf);
    lab.remove()?;
    Ok(Programs {
        empty_nanos,
        cases: timings,
        sizes,
    })
}

/// Loads the object and its programs, with the maps pinned in `pins`.
fn load(object: &Path, pins: &Path) -> Result<aya::Ebpf> {
    let bytes =
        std::fs::read(object).context("cannot read it: run `./x build`, or name it with WEIR_BPF_OBJECT")?;
    let mut ebpf = EbpfLoader::new()
        .default_map_pin_directory(pins)
        .load(&for_this_kernel(bytes.into()))?;
    for name in PROGRAMS {
        let program: &mut SchedClassifier = ebpf
            .program_mut(name)
            .with_context(|| format!("the object has no {name}"))?
            .try_into()?;
        program.load().with_context(|| format!("loading {name}"))?;
    }
    Ok(ebpf)
}

fn cases_first(cases: &[Case]) -> Result<Vec<u8>> {
    Ok(cases.first().context("no cases")?.packet(0))
}

fn fd(ebpf: &aya::Ebpf, name: &str) -> Result<aya::programs::ProgramFd> {
    let program: &SchedClassifier = ebpf.program(name).context("no such program")?.try_into()?;
    Ok(program.fd()?.try_clone()?)
}

/// One round of a case: first a single run whose outcome is checked, then the timed ones.
fn run(program: &aya::programs::ProgramFd, case: &Case, round: u16, repeat: u32) -> Result<u32> {
    let repeat = if case.kind == Kind::New { RING } else { repeat };
    let packet = case.packet(round);
    if case.kind != Kind::New {
        let once = sys::test_run(program.as_fd(), &packet, 1)?;
        ensure!(once.answer == ON, "the program answered {}", once.answer);
        ensure!(
            (once.packet == packet) == (case.kind == Kind::Foreign),
            "the packet was not treated as it should be"
        );
    }
    let tested = sys::test_run(program.as_fd(), &packet, repeat)?;
    ensure!(
        tested.answer == ON,
        "the program answered {} in the end",
        tested.answer
    );
    ensure!(
        tested.packet == packet,
        "the packet did not come back to where it began"
    );
    Ok(tested.nanos)
}

fn timing(case: &Case, nanos: &[f64], empty: f64) -> Timing {
    let net: Vec<f64> = nanos.iter().map(|gross| gross - empty).collect();
    let least = net.iter().copied().fold(f64::INFINITY, f64::min);
    let most = net.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Timing {
        program: case.program,
        what: case.what(),
        family: case.family,
        protocol: if case.protocol == Protocol::Tcp {
            "TCP"
        } else {
            "UDP"
        },
        nanos: stats::median(&net),
        range: (least, most),
    }
}

fn size(ebpf: &aya::Ebpf, name: &str) -> Result<Size> {
    let program: &SchedClassifier = ebpf.program(name).context("no such program")?.try_into()?;
    let info = program.info()?;
    Ok(Size {
        program: name.to_owned(),
        verified: info.verified_instruction_count().unwrap_or_default(),
        machine_code: info.size_jitted(),
    })
}
