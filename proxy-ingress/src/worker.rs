//! A worker: one thread with a runtime of its own, listeners of its own and connections that never leave it. Workers share
//! the snapshot, the counts that limits need, and the pools' slots; nothing of that is locked on the way of a request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::metrics::hosts::Hosts;
use crate::metrics::tally::Tally;
use crate::mix::Random;
use crate::proxied::Fault;
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use crate::telemetry::tellers::{Telling, Told};
use crate::tend::{Fate, Tended};

/// Kept connections are looked at this often.
const SWEEP: Duration = Duration::from_secs(5);

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    /// Connections that may still come.
    pub(crate) room: Arc<Semaphore>,
    /// Connections per address.
    pub(crate) clients: Mutex<HashMap<IpAddr, u32>>,
    /// Requests at work.
    pub(crate) requests: AtomicUsize,
    /// Whether memory is (memory.rs).
    pub(crate) short: AtomicBool,
    /// Whether the end has begun.
    pub(crate) draining: watch::Sender<bool>,
    pub(crate) counters: Counters,
    /// One per worker.
    pub(crate) tallies: Box<[Arc<Tally>]>,
    /// Requests by host, if that is wanted.
    pub(crate) hosts: Option<Hosts>,
    /// What became of lines and spans.
    pub(crate) told: Told,
}

/// What has happened to connections; what happens to requests is in the workers' tallies.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that could not be taken: the system is out of something.
    pub accept_errors: AtomicU64,
    /// Connections closed because of their PROXY protocol header, by [`Fault::name`].
    pub proxy_faults: Mutex<HashMap<&'static str, u64>>,
    /// TLS that did not come to stand.
    pub handshake_errors: AtomicU64,
    /// Connections passed through.
    pub tunnels: AtomicU64,
    /// Connections that were to be passed through, and that no endpoint took.
    pub tunnel_errors: AtomicU64,
    /// Health checks that were passed.
    pub checks: AtomicU64,
    /// Health checks that were not.
    pub check_failures: AtomicU64,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fault(&self, fault: Fault) {
        count_name(&self.proxy_faults, fault.name());
    }
}

fn count_name(counts: &Mutex<HashMap<&'static str, u64>>, name: &'static str) {
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    *counts.entry(name).or_default() += 1;
}

/// What must not end alone: a worker, or one of its listeners. A panic there ends the process, which is started again; half of one
/// would go unnoticed. One in a connection's task costs that connection.
pub(crate) struct Vital(pub(crate) &'static str);

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("{} panicked: the process ends", self.0);
            std::process::abort();
        }
    }
}

/// One of them.
pub(crate) struct Worker {
    pub(crate) id: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) random: Random,
    pub(crate) tally: Arc<Tally>,
    pub(crate) telling: Telling,
    tended: RefCell<Vec<Weak<Tended>>>,
}

impl Worker {
    pub(crate) fn new(id: usize, shared: Arc<Shared>, telling: Telling) -> Self {
        let tally = shared.tallies.get(id).cloned();
        Self {
            id,
            shared,
            random: Random::new(),
            tally: tally.unwrap_or_default(),
            telling,
            tended: RefCell::default(),
        }
    }

    /// Looks after a connection from now on.
    pub(crate) fn watch(&self, tended: &Rc<Tended>) {
        self.tended.borrow_mut().push(Rc::downgrade(tended));
    }

    /// A place for a request, if there is room for it.
    pub(crate) fn admit(&self, settings: &Settings) -> Result<Admitted, Refusal> {
        if self.shared.short.load(Ordering::Relaxed) {
            return Err(Refusal::Memory);
        }
        let before = self.shared.requests.fetch_add(1, Ordering::Relaxed);
        let admitted = Admitted(Arc::clone(&self.shared));
        if before < settings.requests {
            Ok(admitted)
        } else {
            Err(Refusal::Busy)
        }
    }

    /// Looks after connections until the last has ended after a drain.
    pub(crate) async fn tend(self: &Rc<Self>) {
        let tick = self.settings().tick;
        let mut ticks = tokio::time::interval(tick.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        let mut swept = last;
        let mut draining: Option<Instant> = None;
        loop {
            let now = ticks.tick().await;
            let settings = self.settings();
            self.look(now.saturating_duration_since(last), &settings);
            last = now;
            if let Some(log) = &self.telling.log {
                log.flush();
            }
            if now.saturating_duration_since(swept) > SWEEP {
                swept = now;
                self.sweep(settings.upstream.idle_timeout);
            }
            if *self.shared.draining.borrow() {
                let since = *draining.get_or_insert(now);
                let over = now.saturating_duration_since(since) >= settings.drain;
                self.meet(if over { Fate::Close } else { Fate::Finish });
                // Listeners and connections hold their worker; those that have not begun to speak HTTP end with it.
                if Rc::strong_count(self) == 1
                    || over && now.saturating_duration_since(since) > settings.drain + tick
                {
                    return;
                }
            }
        }
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.shared.snapshot.load().settings)
    }

    fn look(&self, since: Duration, settings: &Settings) {
        self.tended.borrow_mut().retain(|weak| {
            let Some(tended) = weak.upgrade() else {
                return false;
            };
            if let Some(limit) = tended.look(since, settings) {
                self.tally.limited(limit);
            }
            true
        });
    }

    fn meet(&self, fate: Fate) {
        for tended in self.tended.borrow().iter().filter_map(Weak::upgrade) {
            tended.meets(fate);
        }
    }

    fn sweep(&self, older_than: Duration) {
        for upstream in self.shared.snapshot.load().backends.values() {
            upstream.sweep(self.id, older_than);
        }
    }
}

/// A request's place.
pub(crate) struct Admitted(Arc<Shared>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}
