//! Has the node's own processes leave UDP endpoints that do not serve any more.
//!
//! ```text
//!  the loop ──a backend was retired──▶ look, end, look again ──why the kernel refused──▶ the loop's report
//!  every 5 s ────────────────────────▶   └──▶ metrics
//! ```
//!
//! The regular look is for what was missed: a `connect` that ran in the same instant, an agent that died between the
//! row and the look, a kernel that refused.

use std::sync::Arc;
use std::time::Duration;

use proxy_model::Step;
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use crate::error::chain;
use crate::kernel::{LeftSockets, OpenError, Pins};
use crate::metrics::Metrics;

/// Time between two regular looks.
const INTERVAL: Duration = Duration::from_secs(5);

/// Rest after a look: backends that are retired one by one are looked at together.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks in a row that end sockets. Each finds fewer, but others may make them faster.
const LOOKS: usize = 4;

/// The loop's side of it.
pub struct Leaving {
    retired: Arc<Notify>,
    problem: watch::Receiver<Option<String>>,
}

impl Leaving {
    /// Looks at once, and from then on.
    pub fn start(pins: &Pins, metrics: &Arc<Metrics>) -> Result<Self, OpenError> {
        let retired = Arc::new(Notify::new());
        let (said, problem) = watch::channel(None);
        let task = Task {
            sockets: LeftSockets::open(pins)?,
            metrics: Arc::clone(metrics),
            retired: Arc::clone(&retired),
            said,
        };
        tokio::spawn(task.run());
        Ok(Self { retired, problem })
    }

    /// The kernel has done this.
    pub fn note(&self, step: &Step) {
        if matches!(step, Step::RetireBackend { .. }) {
            self.retired.notify_one();
        }
    }

    /// Why sockets stay connected to endpoints that do not serve.
    pub fn problem(&self) -> Option<String> {
        self.problem.borrow().clone()
    }

    /// Tells when that changes.
    pub fn news(&self) -> watch::Receiver<Option<String>> {
        self.problem.clone()
    }
}

struct Task {
    sockets: LeftSockets,
    metrics: Arc<Metrics>,
    retired: Arc<Notify>,
    said: watch::Sender<Option<String>>,
}

impl Task {
    /// Until nobody asks for the problem any more.
    async fn run(mut self) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.said.is_closed() {
            let regular = tokio::select! {
                () = self.retired.notified() => false,
                _ = ticks.tick() => true,
            };
            let problem = self.round(regular).await;
            proxy_source::replace(&self.said, problem);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Looks until there is nothing left to end; what is wrong.
    async fn round(&mut self, regular: bool) -> Option<String> {
        let mut why = None;
        for _ in 0..LOOKS {
            let look = match self.sockets.look(regular).await {
                Ok(look) => look,
                Err(error) => return Some(chain(&error)),
            };
            self.metrics.ended(look.ended, look.refused);
            why = look.why;
            if look.ended == 0 {
                break;
            }
        }
        why
    }
}
