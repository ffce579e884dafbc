//! `test e2e`: Kubernetes' own end-to-end tests, in a cluster whose Services are weir's or kube-proxy's.
//!
//! ```text
//! cluster ─▶ ginkgo e2e.test ─▶ report.json ─▶ results ─▶ judged by tests/cluster/expected.toml ─▶ a table
//!                               junit.xml         └─ --record ─▶ tests/cluster/results/PROXY.txt ─▶ docs/parity.md
//! ```
//!
//! docs/cluster.md says how to use it.

mod expected;
mod judge;
mod record;
mod report;
mod run;

use anyhow::{Result, bail};

pub(crate) use expected::Expected;
#[cfg(test)]
pub(crate) use expected::Fail;
pub(crate) use record::Record;
pub(crate) use report::Outcome;

use crate::cluster::{self, Proxy};
use crate::count::Count;
use crate::shell;

/// What weir is judged by: the specs of Kubernetes' network group.
pub(crate) const GROUP: &str = "[sig-network]";

/// What the suite is asked besides.
#[derive(clap::Args)]
pub(crate) struct E2eArgs {
    /// e2e: who implements Services
    #[arg(long, value_enum, default_value = "weir")]
    proxy: Proxy,
    /// e2e: run only specs whose name matches; all of `[sig-network]` if it is not given
    #[arg(long, value_name = "REGEX")]
    focus: Option<String>,
    /// e2e: specs at the same time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
    procs: u8,
    /// e2e: keep the results for docs/parity.md: all of the group, or of the specs in focus
    #[arg(long)]
    record: bool,
}

impl Default for E2eArgs {
    fn default() -> Self {
        Self {
            proxy: Proxy::Weir,
            focus: None,
            procs: 4,
            record: false,
        }
    }
}

/// How much of the group is run if nobody says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What a Kubernetes must do to bear the name
    Conformance,
    /// All that can run here
    Everything,
}

impl Scope {
    /// As ginkgo wants it.
    fn focus(self) -> &'static str {
        match self {
            Self::Conformance => r"\[sig-network\].*\[Conformance\]",
            Self::Everything => r"\[sig-network\]",
        }
    }
}

/// Runs specs, and says of each that did not pass why; the counts, and whether all went as expected.
pub(crate) fn run(args: &E2eArgs, scope: Scope, clusters: &mut cluster::Shared) -> Result<(Count, bool)> {
    let expected = Expected::read()?;
    let programs = cluster::e2e_programs()?;
    let place = clusters.for_e2e(args.proxy)?;
    let focus = args.focus.as_deref().unwrap_or(scope.focus());
    let specs = run::run(&programs, &place, args, focus, &expected)?;
    if !specs.iter().any(|spec| spec.outcome.ran()) {
        bail!("no spec's name matches {focus}");
    }
    let verdict = judge::judge(&specs, args.proxy, &expected);
    shell::say(&verdict.to_string());
    if args.focus.is_none() && scope == Scope::Everything {
        judge::complain_of_strangers(&specs, &expected)?;
    }
    if args.record {
        record::write(args.proxy, &specs, &expected, args.focus.is_some())?;
    }
    Ok((verdict.count(), verdict.is_as_expected()))
}
