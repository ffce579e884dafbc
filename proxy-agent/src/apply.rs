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

/// Plans and applies until there is nothing left to do now. `now` is asked before each plan: steps take their time.
///
/// A refused step ends its plan: the model then knows that this service has to wait, and the next plan holds what the
/// other services still need. So a failure costs the service it happened to, and the steps of one service never go on
/// after one of them failed.
pub async fn catch_up<E: Error>(
    model: &mut Model,
    now: impl Fn() -> Duration,
    mut kernel: impl FnMut(&Step) -> Result<(), E>,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut refused: Vec<Step> = Vec::new();
    loop {
        let mut steps = VecDeque::from(model.plan(now()));
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use proxy_model::{Adopted, Change, GRACE, Kind, Object, Options};
    use serde_json::json;

    use super::*;

    fn object(value: serde_json::Value) -> Object {
        Object::from_value(value).unwrap().unwrap()
    }

    fn slice(address: &str) -> Object {
        object(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": [{"addresses": [address]}], "ports": [{"port": 8080}],
        }))
    }

    #[tokio::test]
    async fn slots_rest_from_when_they_were_left_and_not_from_when_the_work_began() {
        let service = object(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
        }));
        let mut model = Model::new(Options::new("node-a", 7), Adopted::default());
        model.observe(Change::Replace(Kind::Node, Vec::new()));
        model.observe(Change::Replace(Kind::Service, vec![service]));
        model.observe(Change::Replace(Kind::EndpointSlice, vec![slice("10.0.0.1")]));
        let clock = Cell::new(Duration::ZERO);
        let published = Cell::new(Duration::ZERO);
        let mut slow = |step: &Step| {
            clock.set(clock.get() + Duration::from_secs(1));
            if matches!(step, Step::PutService { .. }) {
                published.set(clock.get());
            }
            Ok::<_, Infallible>(())
        };
        catch_up(&mut model, || clock.get(), &mut slow).await;
        model.observe(Change::Put(slice("10.0.0.2")));
        let outcome = catch_up(&mut model, || clock.get(), &mut slow).await;
        assert!(outcome.done > 1 && outcome.failed == 0, "{outcome:?}");
        let rested = model.next_wakeup().unwrap();
        assert!(rested >= published.get() + GRACE, "{rested:?}, {published:?}");
    }
}
