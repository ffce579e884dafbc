//! What failed, when it is tried again, and what an operator is told meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use proxy_common::Ip;

use crate::object::ObjectName;

/// First wait after a failure; doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What is tried as one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Task {
    /// The rows of a Service.
    Service(ObjectName),
    /// The row of an address.
    Address(Ip),
    /// The node port range.
    NodePorts,
    /// The ranges of ClusterIPs.
    ServiceCidrs,
    /// The ranges of pods.
    LocalSources,
    /// Rows of a former agent that nobody can vouch for.
    CleanUp,
}

/// A task that failed.
#[derive(Clone, Debug)]
pub struct Retry {
    /// How often in a row.
    attempts: u32,
    /// When to try again.
    pub due: Duration,
    /// Why it failed.
    pub reason: String,
}

/// All tasks that failed and have not succeeded since.
#[derive(Debug, Default)]
pub struct Retries {
    tasks: BTreeMap<Task, Retry>,
}

impl Retries {
    /// A task failed.
    pub fn failed(&mut self, task: Task, reason: String, now: Duration) {
        let attempts = self.tasks.get(&task).map_or(0, |retry| retry.attempts);
        let wait = FIRST_WAIT.saturating_mul(1 << attempts.min(10)).min(LONGEST_WAIT);
        self.tasks.insert(
            task,
            Retry {
                attempts: attempts.saturating_add(1),
                due: now + wait,
                reason,
            },
        );
    }

    /// There is news about a task: no reason to wait, now or after the next failure.
    pub fn hurry(&mut self, task: &Task) {
        if let Some(retry) = self.tasks.get_mut(task) {
            retry.due = Duration::ZERO;
            retry.attempts = 0;
        }
    }

    /// A task succeeded.
    pub fn succeeded(&mut self, task: &Task) {
        self.tasks.remove(task);
    }

    /// Whether a task may be tried.
    pub fn is_due(&self, task: &Task, now: Duration) -> bool {
        self.due(task) <= now
    }

    /// When a task may be tried.
    pub fn due(&self, task: &Task) -> Duration {
        self.tasks.get(task).map_or(Duration::ZERO, |retry| retry.due)
    }

    /// Everything that failed.
    pub fn iter(&self) -> impl Iterator<Item = (&Task, &Retry)> {
        self.tasks.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_news_end_them() {
        let mut retries = Retries::default();
        let mut waits = Vec::new();
        for _ in 0..12 {
            retries.failed(Task::NodePorts, "full".to_owned(), Duration::ZERO);
            waits.push(retries.due(&Task::NodePorts).as_millis());
        }
        assert_eq!(
            waits,
            [
                250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000, 30000, 30000
            ]
        );
        retries.hurry(&Task::NodePorts);
        assert!(retries.is_due(&Task::NodePorts, Duration::ZERO));
        retries.succeeded(&Task::NodePorts);
        assert_eq!(retries.iter().count(), 0);
    }
}
