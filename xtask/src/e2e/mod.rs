//! `test e2e`: Kubernetes' own end-to-end tests, in a cluster whose Services are weir's or kube-proxy's.
//!
//! ```text
//! cluster ─▶ ginkgo e2e.test ─▶ report.json ─▶ results ─▶ judged by tests/cluster/expected.toml ─▶ a table
//!                               junit.xml      │  ▲       and by tests/cluster/results/PROXY.txt
//!                                              │  └──────────────┐
//!                                              └─ --record ─▶ tests/cluster/results/PROXY.txt ─▶ docs/parity.md
//! ```
//!
//! docs/cluster.md says how to use it.

mod expected;
mod focus;
mod judge;
mod record;
mod report;
mod run;

use anyhow::{Result, bail};

pub(crate) use expected::Expected;
#[cfg(test)]
pub(crate) use expected::Fail;
pub(crate) use focus::Scope;
pub(crate) use record::Record;
pub(crate) use report::Outcome;

use crate::cluster::{self, Proxy};
use crate::count::Count;
use crate::shell;
use focus::Focus;

/// What weir is judged by: the specs of Kubernetes' network group.
pub(crate) const GROUP: &str = "[sig-network]";

/// Named by every spec that a Kubernetes must pass to bear the name.
pub(crate) const CONFORMANCE: &str = "[Conformance]";

/// Specs at the same time, if nobody says.
const PROCS: u8 = 4;

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
    #[arg(long, default_value_t = PROCS, value_parser = clap::value_parser!(u8).range(1..=32))]
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
            procs: PROCS,
            record: false,
        }
    }
}

impl E2eArgs {
    /// Whether anything is asked that is not so anyway.
    pub(crate) fn ask_for_something(&self) -> bool {
        self.proxy != Proxy::Weir || self.focus.is_some() || self.procs != PROCS || self.record
    }
}

/// Runs specs, and says of each that did not pass why; the counts, and whether all went as expected.
pub(crate) fn run(args: &E2eArgs, scope: Scope, clusters: &mut cluster::Shared) -> Result<(Count, bool)> {
    let expected = Expected::read()?;
    let focus = Focus::new(args.focus.as_deref(), scope)?;
    let kept = Record::find(args.proxy)?;
    cluster::can_start()?;
    let programs = cluster::e2e_programs()?;
    let place = clusters.for_e2e(args.proxy)?;
    let keeper = args
        .record
        .then(|| record::Keeper::new(args.proxy, &focus, kept.as_ref(), &place))
        .transpose()?;
    let report = run::run(&programs, &place, args, focus.text(), &expected)?;
    let question = judge::Question {
        proxy: args.proxy,
        focus: &focus,
        expected: &expected,
        kept: kept.as_ref(),
    };
    if let Some(reason) = judge::nothing_ran(&report, &question) {
        bail!("{reason}");
    }
    let verdict = judge::judge(&report, &question);
    shell::say(&verdict.to_string());
    if let Some(keeper) = keeper {
        keeper.write(&report)?;
    }
    Ok((verdict.count(), verdict.is_as_expected()))
}
