//! Short blocks in turn: the machine's moods meet every arm alike, and ratios are made within a round.

use anyhow::Result;
use serde::Serialize;
use weir_measure::rounds::{order, tell, told};

use crate::arms::{Arm, Way};
use crate::worker::{Job, Outcome, Workload};

/// How often, and how long.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) millis: u64,
}

impl Plan {
    pub(crate) fn new(rounds: usize, millis: u64) -> Self {
        Self {
            rounds: rounds.max(1),
            millis: millis.max(20),
        }
    }

    pub(crate) fn quick() -> Self {
        Self::new(2, 150)
    }
}

/// One block that was run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Block {
    pub(crate) round: usize,
    pub(crate) way: Way,
    pub(crate) workload: Workload,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
    /// CPU time of client and server.
    pub(crate) cpu_nanos: u64,
}

/// Runs all rounds, after one that is thrown away.
pub(crate) fn run(arms: &mut [Arm], plan: Plan) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    for round in 0..=plan.rounds {
        tell(round, plan.rounds);
        for workload in Workload::ALL {
            for at in order(arms.len(), round) {
                let Some(arm) = arms.get_mut(at) else { continue };
                let (outcome, cpu_nanos) = arm.run(Job {
                    workload,
                    millis: plan.millis,
                })?;
                blocks.push(Block {
                    round,
                    way: arm.way,
                    workload,
                    outcome,
                    cpu_nanos,
                });
            }
        }
    }
    told();
    // Round 0 fills neighbour tables, caches and the client's port search.
    blocks.retain(|block| block.round > 0);
    Ok(blocks)
}
