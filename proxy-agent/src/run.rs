//! The agent's loop: collect → observe → plan → apply → report.
//!
//! ```text
//!  source ─────────────┐
//!  interfaces ─────────┼──▶ observe ──▶ plan ──▶ apply step by step ──▶ report what is wrong, once
//!  flow sweeper ───────┤        ▲                                           │
//!  the model's clock ──┘        └───────── whatever came meanwhile ◀────────┘
//! ```
//!
//! The first event is acted on at once; what arrives while steps run is taken together.

use std::collections::BTreeSet;
mod inputs;

use std::io;
use std::sync::Arc;

use proxy_common::Ip;
use proxy_model::api::ApiNode;
use proxy_model::{Change, Kind, Masquerade, Model, NodePortAddresses, Object, PodRanges};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use self::inputs::{Input, Inputs};
use crate::apply::{self, Outcome};
use crate::clock;
use crate::error::chain;
use crate::http::{self, ServiceChecks};
use crate::kernel::{self, Interfaces, Kernel, LoadError, MapError, Maps, OpenError, Rules, Snapshot};
use crate::leaving::Leaving;
use crate::metrics::{Metrics, Scraper};
use crate::telemetry::Telemetry;
use proxy_source::{Changes, Report, Source, SourceError};

/// Batches of changes that may wait while steps run; a source that is ahead waits for the kernel.
const QUEUE: usize = 256;

/// What the agent is to do.
pub struct Options {
    /// Name of the own Node.
    pub node_name: String,
    /// Which of the node's addresses serve node ports.
    pub node_port_addresses: NodePortAddresses,
    /// Whether `externalIPs` are served.
    pub external_ips: bool,
    /// Which endpoints see this node and not their client.
    pub masquerade: Masquerade,
    /// Which addresses are pods'.
    pub pod_ranges: PodRanges,
    /// Whether node ports may be served at 127.0.0.1.
    pub localhost_node_ports: bool,
    /// Addresses of API servers that were named.
    pub api_servers: BTreeSet<Ip>,
    /// What to load and where.
    pub kernel: kernel::Options,
    /// Which interfaces are what.
    pub rules: Rules,
    /// Where objects come from.
    pub source: Box<dyn Source>,
    /// Where questions are answered.
    pub http: http::Options,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Why the agent ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The kernel side.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The maps of an earlier agent.
    #[error(
        "reading what an earlier agent left in the maps; if that is damaged, run `weir cleanup` and start again"
    )]
    Adopt(#[source] MapError),
    /// Handles for the sweeper, and for whoever ends sockets.
    #[error(transparent)]
    Sweeper(#[from] OpenError),
    /// The interfaces.
    #[error("following the node's interfaces over netlink")]
    Interfaces(#[source] io::Error),
    /// Signals.
    #[error("listening to signals")]
    Signals(#[source] io::Error),
    /// The thread that answers over HTTP.
    #[error("starting to answer over HTTP")]
    Http(#[source] io::Error),
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A task ended that never should.
    #[error("{0} ended unexpectedly: please report this")]
    Ended(&'static str),
}

/// Runs until a signal says to stop. The programs and maps stay in the kernel, however this ends.
pub async fn run(options: Options) -> Result<(), RunError> {
    let Kernel {
        maps,
        programs,
        features,
        adopted,
    } = kernel::load(&options.kernel)?;
    tracing::debug!(?features, adopted, "kernel programs loaded");
    let interfaces = Interfaces::start(programs, options.rules).map_err(RunError::Interfaces)?;
    let telemetry = Telemetry::new(options.metrics, clock::monotonic());
    let health = Arc::clone(&telemetry.health);
    let scraper = Scraper::new(Arc::clone(&telemetry.metrics), maps.pins().clone());
    let model = proxy_model::Options {
        node_port_addresses: options.node_port_addresses,
        external_ips: options.external_ips,
        masquerade: options.masquerade,
        pod_ranges: options.pod_ranges,
        only_own_node: options.source.only_own_node(),
        localhost_node_ports: options.localhost_node_ports,
        api_servers: options.api_servers,
        // Each node starts its round robin somewhere else, so that they do not all pick the same endpoint first.
        ..proxy_model::Options::new(options.node_name, SmallRng::from_os_rng().random())
    };
    let (checks, keeper) = http::service_checks(Arc::clone(&health));
    let mut agent = Agent::new(model, maps, interfaces, telemetry, checks)?;
    let mut inputs = Inputs::start(options.source, &agent)?;
    http::start(options.http, health, scraper, keeper).map_err(RunError::Http)?;
    loop {
        let due = agent.model.next_wakeup();
        let wakeups = [due, agent.telemetry.next_count()];
        let input = inputs.next(wakeups.into_iter().flatten().min()).await?;
        agent.telemetry.began(clock::monotonic());
        let mut news = match input {
            Input::Stop(signal) => {
                tracing::info!("{signal}: the agent ends; the programs in the kernel go on serving");
                return Ok(());
            }
            Input::Changes(changes) => agent.observe(changes),
            Input::Snapshot(snapshot) => agent.observe_interfaces(snapshot),
            Input::Walk(walk) => {
                agent.telemetry.metrics.aged(walk.expired);
                agent.model.observe(Change::FrontendsInUse {
                    began: walk.began,
                    frontends: walk.frontends,
                })
            }
            // What is wrong is looked at anew.
            Input::Refused => true,
            Input::Time => due.is_some_and(|at| at <= clock::monotonic()),
        };
        while let Ok(changes) = inputs.changes.try_recv() {
            news |= agent.observe(changes);
        }
        agent.step(news).await;
    }
}

/// What the loop works on.
struct Agent {
    node_name: String,
    /// No other Node is listed: a list without it is no folder that has none.
    only_own_node: bool,
    model: Model,
    maps: Maps,
    interfaces: Interfaces,
    attached: Snapshot,
    /// Why the node's configuration could not be written.
    unconfigured: Option<String>,
    ready: bool,
    checks: ServiceChecks,
    leaving: Leaving,
    problems: Report,
    telemetry: Telemetry,
}

impl Agent {
    fn new(
        options: proxy_model::Options,
        maps: Maps,
        interfaces: Interfaces,
        telemetry: Telemetry,
        checks: ServiceChecks,
    ) -> Result<Self, RunError> {
        let adopted = maps.adopt().map_err(RunError::Adopt)?;
        if !adopted.services.is_empty() {
            tracing::info!(
                "adopted {} frontends and {} endpoints of an earlier agent, which go on serving",
                adopted.services.len(),
                adopted.backends.len(),
            );
        }
        let leaving = Leaving::start(maps.pins(), &telemetry.metrics)?;
        Ok(Self {
            node_name: options.node_name.clone(),
            only_own_node: options.only_own_node,
            model: Model::new(options, adopted),
            maps,
            interfaces,
            attached: Snapshot::default(),
            unconfigured: None,
            ready: false,
            checks,
            leaving,
            problems: Report::default(),
            telemetry,
        })
    }

    /// Takes in what a source says; whether any of it is new.
    fn observe(&mut self, changes: Changes) -> bool {
        let mut news = false;
        for change in changes {
            match &change {
                Change::Replace(Kind::Node, objects) => {
                    let own = objects.iter().rev().find_map(|object| self.own_node(object));
                    // A complete list without it: there is nothing to wait for.
                    self.interfaces
                        .set_node_addresses(own.map(ApiNode::ips).unwrap_or_default());
                    match own {
                        Some(node) => self.telemetry.set_node(node),
                        // A folder without any Node is no mistake.
                        None if objects.is_empty() && !self.only_own_node => {}
                        None => self.telemetry.lost_node(),
                    }
                }
                Change::Put(object) => {
                    // Its addresses tell which interfaces are uplinks.
                    if let Some(own) = self.own_node(object) {
                        self.interfaces.set_node_addresses(own.ips());
                        self.telemetry.set_node(own);
                    }
                }
                Change::Delete(Kind::Node, name) if name.name == self.node_name => self.telemetry.lost_node(),
                _ => {}
            }
            let noted = self.telemetry.note(&change);
            if self.model.observe(change) {
                news = true;
                self.telemetry.changed(noted);
            }
        }
        news
    }

    fn own_node<'o>(&self, object: &'o Object) -> Option<&'o ApiNode> {
        match object {
            Object::Node(node) if object.name().name == self.node_name => Some(node),
            _ => None,
        }
    }

    /// Takes in what the node's interfaces are; whether any of it is new.
    fn observe_interfaces(&mut self, snapshot: Snapshot) -> bool {
        let mut news = snapshot != self.attached;
        if snapshot.complete {
            news |= self
                .model
                .observe(Change::LocalAddresses(snapshot.addresses.clone()));
            let written = self
                .maps
                .set_fallback_sources(snapshot.sources, snapshot.node_read);
            let unconfigured = written.err().map(|error| chain(&error));
            news |= unconfigured != self.unconfigured;
            self.unconfigured = unconfigured;
        }
        self.attached = snapshot;
        news
    }

    /// Plans and applies. What is wrong is looked for if there is `news`, or something was done: it is a walk over all
    /// Services.
    async fn step(&mut self, news: bool) {
        let before = clock::monotonic();
        let Self {
            model, maps, leaving, ..
        } = self;
        let outcome = apply::catch_up(model, clock::monotonic, |step| {
            tracing::trace!(?step);
            maps.apply(step).inspect(|()| leaving.note(step))
        })
        .await;
        let took = clock::monotonic().saturating_sub(before);
        if outcome != Outcome::default() {
            tracing::debug!(
                done = outcome.done,
                failed = outcome.failed,
                ?took,
                "plan applied"
            );
        }
        let now = clock::monotonic();
        self.telemetry.done(news, outcome, now);
        if news || outcome != Outcome::default() {
            self.report();
            self.say_ready();
        }
        if self.telemetry.wants_counts(now) {
            let (summary, problems) = (self.model.describe(), self.problems.len());
            let interfaces = self.attached_interfaces();
            let metrics = &self.telemetry.metrics;
            metrics.counted(&summary, problems, interfaces, self.ready);
        }
    }

    fn attached_interfaces(&self) -> usize {
        let interfaces = self.attached.interfaces.iter();
        interfaces.filter(|one| one.problem.is_none()).count()
    }

    /// What follows from the objects beside rows: health checks, and what is to be said.
    fn report(&mut self) {
        let checks = self.model.health_checks().unwrap_or_default();
        self.checks.want(checks.sockets);
        let mut unanswered = self.checks.problems();
        unanswered.extend(checks.problems);
        let of_objects = self.model.problems_with(unanswered);
        let of_interfaces = self.attached.interfaces.iter().filter_map(|interface| {
            let problem = interface.problem.as_ref()?;
            Some(format!("interface {}: {problem}", interface.name))
        });
        let others = of_interfaces.chain(self.unconfigured.clone());
        self.problems
            .replace(of_objects, others.chain(self.leaving.problem()));
    }

    fn say_ready(&mut self) {
        // Before the Node is read, interfaces that only it can tell from others have no programs.
        if self.ready || !self.attached.complete || !self.attached.node_read {
            return;
        }
        let summary = self.model.describe();
        if !summary.synced {
            return;
        }
        self.ready = true;
        tracing::info!(
            "ready services={} backends={} interfaces={}",
            summary.services,
            summary.backends,
            self.attached_interfaces(),
        );
    }
}
