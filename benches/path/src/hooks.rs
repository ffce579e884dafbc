//! What weir's programs cost during real connections, by the kernel's own statistics.
//!
//! Taken after the timed blocks, because the statistics cost time themselves: two reads of the clock a run, most of
//! which are not part of the numbers.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{ProgramInfo, loaded_programs};
use aya::sys::Stats;
use serde::Serialize;

use crate::arms::{Arm, Way};
use crate::rounds::Plan;
use crate::worker::{Job, Workload};

/// What one program did for one transaction.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Share {
    pub(crate) way: Way,
    pub(crate) workload: Workload,
    pub(crate) program: String,
    /// Runs for a transaction; for a stream, per 64 KiB.
    pub(crate) runs: f64,
    /// Nanoseconds of a run.
    pub(crate) nanos: f64,
}

/// Runs a block of every workload on the arms that have programs.
pub(crate) fn measure(arms: &mut [Arm], plan: Plan) -> Result<Vec<Share>> {
    let _on = aya::sys::enable_stats(Stats::RunTime).context("cannot turn the run statistics on")?;
    let mut shares = Vec::new();
    for arm in arms
        .iter_mut()
        .filter(|arm| matches!(arm.way, Way::Socket | Way::Packet))
    {
        for workload in Workload::ALL {
            let before = programs(arm)?;
            let (outcome, _) = arm.run(Job {
                workload,
                millis: plan.millis,
            })?;
            let after = programs(arm)?;
            let unit = if workload == Workload::Stream { 65_536 } else { 1 };
            shares.extend(after.iter().filter_map(|(id, new)| {
                share(before.get(id)?, new, (arm.way, workload), outcome.count / unit)
            }));
        }
    }
    Ok(shares)
}

#[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds of one second")]
fn share(old: &ProgramInfo, new: &ProgramInfo, at: (Way, Workload), transactions: u64) -> Option<Share> {
    let runs = new.run_count().checked_sub(old.run_count())?;
    let nanos = new.run_time().checked_sub(old.run_time())?.as_nanos();
    if runs == 0 || transactions == 0 {
        return None;
    }
    Some(Share {
        way: at.0,
        workload: at.1,
        program: new.name_as_str()?.to_owned(),
        runs: runs as f64 / transactions as f64,
        nanos: nanos as f64 / runs as f64,
    })
}

/// The programs behind the links that an arm's agent has pinned, by id.
fn programs(arm: &Arm) -> Result<BTreeMap<u32, ProgramInfo>> {
    let folder = arm
        .node
        .bpffs()
        .join(format!("weir/v{}/links", proxy_common::ABI_VERSION));
    let mut ids = BTreeSet::new();
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let link = PinnedLink::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
        ids.insert(FdLink::from(link).info()?.program_id());
    }
    ensure!(!ids.is_empty(), "no links are pinned in {}", folder.display());
    // Programs of others may go while we look.
    let all = loaded_programs().filter_map(Result::ok);
    Ok(all
        .filter(|program| ids.contains(&program.id()))
        .map(|program| (program.id(), program))
        .collect())
}
