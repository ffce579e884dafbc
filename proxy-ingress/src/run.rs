//! The ingress's loop: collect → model → snapshot → workers → report.
//!
//! ```text
//!  source ──changes──▶ model ──what is different──▶ served ──snapshot──▶ engine
//!    ▲                                                │
//!    └──── which Secrets are named, what is wrong ◀───┘
//! ```
//!
//! The first change is acted on at once; what comes meanwhile is taken together. Nobody is answered before all objects have
//! been seen: a route that is not known yet is no 404.

mod error;
mod inputs;
mod leaving;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proxy_model::{Change, Kind, Object, ObjectName};
use proxy_source::{Changes, Report, Source, Statuses, clock, replace};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

pub use self::error::RunError;
use self::inputs::{Bells, Input, Inputs};
use self::leaving::Leaving;
use crate::admin::socket::Asked;
use crate::admin::{Question, View};
use crate::engine::{Bound, Engine};
use crate::handover::{self, Offer, Predecessor};
use crate::memory::{self, Budget};
use crate::metrics::Metrics;
use crate::model::hosts::Conflict;
use crate::model::{self, Model};
use crate::probes::{Probes, Stage};
use crate::served::{Fixed, Secrets, Served};
use crate::snapshot::Snapshot;
use crate::status::Places;
use crate::telemetry::Telemetry;

/// A Secret that nobody can read does not keep all others from being served for longer.
const SECRETS_WITHIN: Duration = Duration::from_secs(10);

/// Giving the Lease back is not worth more time.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(3);

/// What is to be done.
pub struct Options {
    /// Where objects come from.
    pub source: Box<dyn Source>,
    /// The Secrets that are named, for a source that asks for them one by one.
    pub wanted: watch::Sender<BTreeSet<ObjectName>>,
    /// Whom it serves.
    pub model: model::Options,
    /// What does not change.
    pub fixed: Fixed,
    /// What Secrets become.
    pub secrets: Secrets,
    /// The ports.
    pub doors: Bound,
    /// What probes are told.
    pub probes: Arc<Probes>,
    /// What is counted.
    pub metrics: Metrics,
    /// What is told of requests.
    pub telemetry: Telemetry,
    /// Where clients connect, for the status of Ingresses; none: it is left alone.
    pub places: Option<Places>,
    /// What operators ask.
    pub questions: mpsc::Receiver<Asked>,
    /// After SIGTERM clients are taken for this long.
    pub shutdown_delay: Duration,
    /// Where the next process finds the listening sockets.
    pub handover: Option<PathBuf>,
    /// The process that these are from.
    pub predecessor: Option<Predecessor>,
    /// When the next process serves, it is not for this one to end: somebody ends it, or would start it again.
    pub wait_relieved: bool,
    /// How much memory there may be in use, if anybody says.
    pub memory: Option<Budget>,
    /// Who answers probes; the next process has the port as soon as it serves.
    pub status: JoinHandle<()>,
}

/// Serves until a signal says to stop, and then until clients have been served, or their time is up.
pub async fn run(options: Options) -> Result<(), RunError> {
    let report = Report::default();
    let statuses = watch::channel(Statuses::default()).0;
    let publishing = options.places.as_ref().map(|_| statuses.subscribe());
    let publishing = publishing.map(|statuses| tokio::spawn(options.source.publish(statuses)));
    let (mut inputs, bells) = Inputs::start(options.source, options.questions, &report)?;
    let mut ingress = Ingress {
        model: Model::new(options.model),
        served: Served::new(options.fixed, options.secrets),
        wanted: options.wanted,
        report,
        probes: options.probes,
        metrics: options.metrics,
        telemetry: options.telemetry,
        places: options.places,
        statuses,
        status_stale: true,
        doors: options.doors.doors().collect(),
        state: State::Bound(options.doors),
        handover: options.handover,
        predecessor: options.predecessor,
        offer: None,
        bells,
        snapshot: None,
        secrets_due: None,
        shutdown_delay: options.shutdown_delay,
        leaving: Leaving::default(),
        wait_relieved: options.wait_relieved,
        memory: options.memory,
        status: options.status,
    };
    let ended = ingress.work(&mut inputs).await;
    // Who leads gives the Lease back, so that the next one need not wait for its end.
    drop(ingress);
    if let Some(publishing) = publishing {
        let _given_back = timeout(GIVE_BACK_WITHIN, publishing).await;
    }
    ended
}

impl Ingress {
    /// Until it is to end.
    async fn work(&mut self, inputs: &mut Inputs) -> Result<(), RunError> {
        loop {
            let due = self.secrets_due.into_iter().chain(self.leaving.due).min();
            match inputs.next(due).await? {
                Input::Stop(stop) => {
                    if let ControlFlow::Break(()) = self.stop(stop) {
                        return Ok(());
                    }
                }
                Input::Ended => {
                    if let ControlFlow::Break(()) = self.ended() {
                        return Ok(());
                    }
                }
                Input::Question((question, answer)) => self.answer(&question, answer),
                Input::Changes(changes) => self.observe(changes),
                Input::Time => self.drain_if_due(),
            }
            while let Ok(changes) = inputs.changes.try_recv() {
                self.observe(changes);
            }
            self.step()?;
        }
    }
}

/// Ports are taken at once, and clients once everything is known.
enum State {
    Bound(Bound),
    Serving(Engine),
    /// For the moment in which one becomes the other.
    Between,
}

/// What the loop works on.
struct Ingress {
    model: Model,
    served: Served,
    wanted: watch::Sender<BTreeSet<ObjectName>>,
    report: Report,
    probes: Arc<Probes>,
    metrics: Metrics,
    telemetry: Telemetry,
    places: Option<Places>,
    statuses: watch::Sender<Statuses>,
    /// What it says may be another thing by now.
    status_stale: bool,
    /// Where clients come to, and whether TLS is spoken there.
    doors: Vec<(SocketAddr, bool)>,
    state: State,
    /// Where the next process finds the listening sockets.
    handover: Option<PathBuf>,
    /// The process that ours are from.
    predecessor: Option<Predecessor>,
    /// Our sockets, for the next process.
    offer: Option<Offer>,
    bells: Bells,
    /// What workers read.
    snapshot: Option<Arc<Snapshot>>,
    /// When it is served without the Secrets that are still missing.
    secrets_due: Option<Instant>,
    shutdown_delay: Duration,
    leaving: Leaving,
    wait_relieved: bool,
    memory: Option<Budget>,
    status: JoinHandle<()>,
}

impl Ingress {
    fn observe(&mut self, changes: Changes) {
        for change in changes {
            if let Some(places) = &mut self.places {
                self.status_stale |= places.hear(&change) || is_about_ours(&change);
            }
            match change {
                Change::Put(object) => match &object {
                    Object::Secret(secret) => self.served.secrets().put(object.name(), secret, now()),
                    _ => self.model.put(&object),
                },
                Change::Delete(Kind::Secret, name) => self.served.secrets().delete(&name),
                Change::Delete(kind, name) => self.model.delete(kind, &name),
                Change::Replace(Kind::Secret, list) => {
                    let secrets = list.iter().filter_map(|object| match object {
                        Object::Secret(secret) => Some((object.name(), secret)),
                        _ => None,
                    });
                    self.served.secrets().replace(secrets, now());
                }
                Change::Replace(kind, list) => self.model.replace(kind, &list),
                // A node's business.
                Change::LocalAddresses(_) | Change::FrontendsInUse { .. } => {}
            }
        }
    }

    /// Brings what is known to the workers.
    fn step(&mut self) -> Result<(), RunError> {
        let begun = Instant::now();
        let mut changed = self.model.changes();
        let certificates = self.served.take(&mut changed);
        if certificates {
            self.want_secrets();
        }
        if self.is_ready() {
            self.serve()?;
        }
        self.publish();
        if certificates || changed.problems.is_some() || changed.conflicts.is_some() {
            self.report();
        }
        if certificates || !changed.is_empty() {
            self.metrics.changed(begun.elapsed());
        }
        Ok(())
    }

    /// Says which Ingresses are ours, and where clients connect.
    fn publish(&mut self) {
        let Some(places) = &self.places else { return };
        if !self.status_stale || !matches!(self.state, State::Serving(_)) {
            return;
        }
        self.status_stale = false;
        let now = Statuses {
            addresses: places.all(),
            ingresses: self.model.ours().cloned().collect(),
        };
        replace(&self.statuses, now);
    }

    fn want_secrets(&mut self) {
        let wanted = self.served.wanted();
        self.served.secrets().keep(&wanted);
        replace(&self.wanted, wanted);
    }

    /// Whether all is known that is needed; Secrets are waited for, but not for ever.
    fn is_ready(&mut self) -> bool {
        if matches!(self.state, State::Serving(_)) {
            return true;
        }
        if !self.model.synced() {
            return false;
        }
        let missing = self.served.unanswered();
        if missing == 0 {
            self.secrets_due = None;
            return true;
        }
        let due = *self
            .secrets_due
            .get_or_insert_with(|| Instant::now() + SECRETS_WITHIN);
        let over = Instant::now() >= due;
        if over {
            self.secrets_due = None;
            tracing::warn!(
                "{missing} Secrets cannot be read yet: their hosts are served with the default certificate"
            );
        }
        over
    }

    fn serve(&mut self) -> Result<(), RunError> {
        let Some(snapshot) = self.served.snapshot() else {
            return Ok(());
        };
        self.snapshot = Some(Arc::clone(&snapshot));
        self.state = match std::mem::replace(&mut self.state, State::Between) {
            State::Bound(bound) => State::Serving(self.begin(bound, snapshot)?),
            State::Serving(engine) => {
                engine.serve(snapshot);
                State::Serving(engine)
            }
            State::Between => State::Between,
        };
        Ok(())
    }

    /// Takes clients from now on.
    fn begin(&mut self, bound: Bound, snapshot: Arc<Snapshot>) -> Result<Engine, RunError> {
        let copies = self.handover.is_some().then(|| bound.copies());
        let engine = bound.serve(snapshot, std::mem::take(&mut self.telemetry))?;
        self.metrics.show(&engine.view());
        if let Some(budget) = self.memory.take() {
            tokio::spawn(memory::watch(budget, engine.view()));
        }
        self.probes.set(Stage::Serving);
        let addresses = engine
            .addresses()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>();
        tracing::info!("ready at {}", addresses.join(", "));
        if let Some(predecessor) = self.predecessor.take()
            && let Err(error) = predecessor.relieve()
        {
            tracing::info!("the process before has ended already: {error}");
        }
        if let (Some(path), Some(copies)) = (&self.handover, copies) {
            let relieved = self.bells.relieved.clone();
            match copies.and_then(|copies| handover::offer(path, copies, relieved)) {
                Ok(offer) => self.offer = Some(offer),
                Err(error) => warn_of_no_successor(path, &error),
            }
        }
        Ok(engine)
    }

    fn answer(&self, question: &Question, answer: oneshot::Sender<Vec<u8>>) {
        let view = View {
            model: &self.model,
            served: &self.served,
            snapshot: self.snapshot.as_deref(),
            doors: &self.doors,
            ready: self.probes.stage() == Stage::Serving,
        };
        match view.answer(question).and_then(|value| serde_json::to_vec(&value)) {
            // Who asked may have gone.
            Ok(bytes) => drop(answer.send(bytes)),
            Err(error) => tracing::warn!(%error, "a question cannot be answered: please report this"),
        }
    }

    fn report(&mut self) {
        let mut problems = self.model.problems();
        let conflicts = self.model.conflicts();
        problems.extend(self.served.problems());
        self.metrics.counted(problems.len(), conflicts.len());
        problems.extend(conflicts.iter().map(Conflict::problem));
        for problem in &mut problems {
            if problem.uid.is_none() && problem.kind == Kind::Ingress {
                problem.uid = self.model.uid(&problem.name).map(str::to_owned);
            }
        }
        self.report.replace(problems, std::iter::empty());
    }
}

fn warn_of_no_successor(path: &Path, error: &io::Error) {
    let path = path.display();
    tracing::warn!(
        "the next process will find no listening sockets at {path}: {error}; choose another place with --handover-socket"
    );
}

/// Whether it may change which Ingresses are ours: that is a walk over all of them, and endpoints change far more often.
fn is_about_ours(change: &Change) -> bool {
    let kind = match change {
        Change::Put(object) => object.kind(),
        Change::Delete(kind, _) | Change::Replace(kind, _) => *kind,
        Change::LocalAddresses(_) | Change::FrontendsInUse { .. } => return false,
    };
    matches!(kind, Kind::Ingress | Kind::IngressClass)
}

/// Seconds since 1970.
fn now() -> i64 {
    let unix = clock::wall().unix(clock::monotonic());
    i64::try_from(unix.as_secs()).unwrap_or(i64::MAX)
}
