//! Carries a plan out, step by step.

use std::collections::VecDeque;
use std::error::Error;
use std::time::Duration;

use proxy_model::{Model, Step};

use crate::error::chain;

/// Steps between two looks at the rest of the world.
const BREATH: usize = 512;

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
pub struct Outcome {
    /// Steps that the kernel did.
    pub done: usize,
    /// Steps that it refused.
    pub failed: usize,
}

/// Plans and applies until there is nothing left to do now.
///
/// A refused step ends its plan: the model then knows that this service has to wait, and the next plan holds what the
/// other services still need. So a failure costs the service it happened to, and the steps of one service never go on
/// after one of them failed.
pub async fn catch_up<E: Error>(
    model: &mut Model,
    now: Duration,
    mut kernel: impl FnMut(&Step) -> Result<(), E>,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut refused: Vec<Step> = Vec::new();
    loop {
        let mut steps = VecDeque::from(model.plan(now));
        if steps.is_empty() {
            return outcome;
        }
        while let Some(step) = steps.pop_front() {
            if let Err(error) = kernel(&step) {
                model.failed(&step, chain(&error));
                outcome.failed += 1;
                // The model sets what was refused aside for a while. Should it ask again at once, that ends the round.
                if refused.contains(&step) {
                    return outcome;
                }
                refused.push(step);
                break;
            }
            model.applied(&step);
            outcome.done += 1;
            if outcome.done.is_multiple_of(BREATH) {
                tokio::task::yield_now().await;
            }
        }
    }
}
