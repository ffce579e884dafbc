//! Short blocks in turn: the machine's moods meet every arm alike, and ratios are made within a round.

use std::io::{IsTerminal, Write};

use anyhow::Result;
use serde::Serialize;

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
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    // Round 0 fills neighbour tables, caches and the client's port search.
    blocks.retain(|block| block.round > 0);
    Ok(blocks)
}

fn tell(round: usize, rounds: usize) {
    if std::io::stderr().is_terminal() {
        eprint!("\rround {round} of {rounds} ");
        let _lost = std::io::stderr().flush();
    } else if round.is_multiple_of(8) {
        eprintln!("round {round} of {rounds}");
    }
}

/// The order of a round: each arm is first in turn, and every other round runs backwards.
fn order(count: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.rotate_left((round / 2) % count.max(1));
    if !round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn every_arm_is_at_every_place_equally_often() {
        let mut seen = [[0; 4]; 4];
        for round in 0..8 {
            for (place, arm) in order(4, round).into_iter().enumerate() {
                seen[arm][place] += 1;
            }
        }
        assert_eq!(seen, [[2; 4]; 4]);
    }
}
