//! The state machine of the node: news in, steps out, results back.
//!
//! ```text
//!  observe ──▶ objects ──▶ dirty Services and addresses
//!                               │
//!  plan ◀── steps ◀── reconcile each ◀── desired(objects) , mirror(kernel)
//!    │                                        ▲
//!    └──▶ the agent ──▶ applied ──────────────┘     failed ──▶ retries
//! ```
//!
//! A Service stays dirty until a look at it gives no more steps: what is believed about the kernel is only ever what
//! was reported back, so a plan that was carried out in part is simply followed by another one.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use proxy_common::Scope;

use crate::addresses::{self, Addresses, Planned};
use crate::adopt::{self, Distrusted};
use crate::change::{Adopted, Change, Options, Summary};
use crate::desired::Refusal;
use crate::health_checks::HealthChecks;
use crate::mirror::Mirror;
use crate::node_ports::LOOPBACK;
use crate::object::{Kind, ObjectName};
use crate::objects::{Dirty, Objects};
use crate::plan::Step;
use crate::ports::Ports;
use crate::problem::{Problem, Reason};
use crate::retry::{Retries, Task};

/// Everything a node knows: objects in, steps out.
#[derive(Debug)]
pub struct Model {
    pub(crate) options: Options,
    pub(crate) objects: Objects,
    pub(crate) mirror: Mirror,
    pub(crate) ports: Ports,
    pub(crate) addresses: Addresses,
    pub(crate) distrusted: Distrusted,
    pub(crate) dirty: Dirty,
    pub(crate) retries: Retries,
    /// What Services asked for and did not get, as of the last look at each.
    pub(crate) refused: HashMap<ObjectName, Vec<Refusal>>,
    /// Services that wait for room in a map.
    pub(crate) waiting_for_room: BTreeSet<ObjectName>,
    /// Whether a row went since the last plan.
    pub(crate) gained_room: bool,
    /// Time of the last plan.
    pub(crate) now: Duration,
}

impl Model {
    /// A model over the rows that a former agent left. They are verified, not trusted.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the rows are many, and nobody needs them afterwards"
    )]
    pub fn new(options: Options, adopted: Adopted) -> Self {
        let mirror = Mirror::new(&adopted);
        let mut ports = Ports::new(&options.limits);
        let distrusted = adopt::adopt(&adopted, &mirror, &options.limits, &mut ports);
        // A former agent may have been stopped between a frontend and its address.
        let frontends = mirror.services().keys();
        let adopted_frontends = frontends
            .filter(|key| key.scope == Scope::Address.code())
            .map(|key| key.address);
        let dirty = Dirty {
            services: ports.services().cloned().collect(),
            addresses: mirror
                .addresses()
                .keys()
                .copied()
                .chain(adopted_frontends)
                .chain(LOOPBACK)
                .collect(),
            ..Dirty::default()
        };
        Self {
            objects: Objects::new(&options),
            options,
            mirror,
            ports,
            addresses: Addresses::default(),
            distrusted,
            dirty,
            retries: Retries::default(),
            refused: HashMap::new(),
            waiting_for_room: BTreeSet::new(),
            gained_room: false,
            now: Duration::ZERO,
        }
    }

    /// Takes in news, and says whether it was any: an object may be told again with nothing new in it, and what is for the
    /// ingress is none here. Work is proportional to what changed.
    pub fn observe(&mut self, change: Change) -> bool {
        let mut touched = Dirty::default();
        match change {
            Change::Put(object) if !Kind::ALL.contains(&object.kind()) => {}
            Change::Delete(kind, _) | Change::Replace(kind, _) if !Kind::ALL.contains(&kind) => {}
            Change::Put(object) => self.objects.put(&object, &mut touched),
            Change::Delete(kind, name) => self.objects.delete(kind, &name, &mut touched),
            Change::Replace(kind, list) => self.objects.replace(kind, &list, &mut touched),
            Change::LocalAddresses(list) => {
                self.objects
                    .set_local(list.into_iter().map(|address| address.ip).collect(), &mut touched);
            }
            Change::FrontendsInUse { began, frontends } => touched
                .addresses
                .extend(self.addresses.note_walk(began, &frontends, &self.mirror)),
        }
        let news = !touched.is_empty();
        touched.services.extend(self.holders(&touched));
        for name in touched.services {
            self.retries.hurry(&Task::Service(name.clone()));
            self.dirty.services.insert(name);
        }
        for address in touched.addresses {
            self.retries.hurry(&Task::Address(address));
            self.dirty.addresses.insert(address);
        }
        news
    }

    /// Who has the rows of what was touched. A Service that is gone leaves a frontend to whoever asks for it next, until
    /// that one writes it; should that one not want it any more, or not get it, only the row tells whom to look at.
    fn holders(&self, touched: &Dirty) -> Vec<ObjectName> {
        let given_up = touched
            .frontends
            .iter()
            .filter_map(|key| self.mirror.service(key));
        let at = |address| self.mirror.rows_at(address).map(|(_, row)| row);
        let rows = given_up.chain(touched.addresses.iter().copied().flat_map(at));
        let ports = rows.filter_map(|row| self.ports.owner(row.id));
        ports.map(|port| port.service.clone()).collect()
    }

    /// What to do next, in order; empty when nothing is to be done, and until Services, EndpointSlices and Nodes are synced.
    ///
    /// Carry the steps out in order and report each with [`Self::applied`]. At the first one that fails, report it with
    /// [`Self::failed`], leave the rest of the plan aside, and ask for a new plan: it goes on with the other Services.
    /// Then plan again until a plan is empty: what a change leaves behind is cleaned up by a later plan.
    /// `now` is monotonic.
    pub fn plan(&mut self, now: Duration) -> Vec<Step> {
        self.now = self.now.max(now);
        self.addresses.date(self.now);
        if !self.objects.synced() {
            return Vec::new();
        }
        if self.ports.expire(self.now) | std::mem::take(&mut self.gained_room) {
            for name in std::mem::take(&mut self.waiting_for_room) {
                self.retries.hurry(&Task::Service(name));
            }
        }
        if self.has_distrusted_rows() {
            return self.plan_clean_up();
        }
        for slot in std::mem::take(&mut self.distrusted.slots) {
            self.ports.slabs.leaving.push(slot, self.now);
        }
        let (mut steps, forget) = self.plan_services();
        let planned = Planned::of(&steps);
        steps.extend(self.plan_addresses(&planned));
        steps.extend(forget);
        steps.extend(self.plan_node_ports(&planned));
        steps.extend(self.plan_service_cidrs());
        steps.extend(self.plan_local_sources());
        steps.extend(self.plan_orphans());
        steps
    }

    /// The kernel has done this step; only now does the model believe it.
    pub fn applied(&mut self, step: &Step) {
        let task = self.task(step);
        if let Step::PutService { key, .. } | Step::DeleteService { key } = step {
            // Whoever had the frontend before can let go of what it held for it.
            let before = self.mirror.service(key).and_then(|row| self.ports.owner(row.id));
            self.dirty
                .services
                .extend(before.map(|port| port.service.clone()));
            self.distrusted.rows.remove(key);
            if key.scope == Scope::Address.code() {
                self.dirty.addresses.insert(key.address);
            }
        }
        match step {
            Step::DeleteName { id } | Step::PutName { id, .. } => {
                self.distrusted.names.remove(id);
            }
            Step::DeleteSourceRange { id, range } => {
                self.distrusted.sources.remove(&(*id, *range));
            }
            Step::DeleteAffinityBackend { id } => {
                self.distrusted.affinity_backends.remove(id);
            }
            Step::PutCursor { index, .. } => self.cursor_started(*index),
            Step::PutAddress { address, row } => self.addresses.written(*address, *row),
            Step::DeleteAddress { address } => self.addresses.deleted(*address),
            _ => {}
        }
        self.gained_room |= matches!(step, Step::DeleteService { .. } | Step::DeleteAddress { .. });
        self.mirror.apply(step);
        match task {
            Task::Service(name) => {
                self.dirty.services.insert(name);
            }
            other => self.retries.succeeded(&other),
        }
    }

    /// The kernel refused this step: the Service keeps its old rows, has a problem, and is tried again later.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the caller has no use for the reason afterwards"
    )]
    pub fn failed(&mut self, step: &Step, reason: String) {
        let task = self.task(step);
        match &task {
            Task::Service(name) => {
                self.dirty.services.insert(name.clone());
            }
            Task::Address(address) => {
                self.dirty.addresses.insert(*address);
            }
            Task::NodePorts | Task::ServiceCidrs | Task::LocalSources | Task::CleanUp => {}
        }
        let reason = format!("{reason}: the old rows stay, and it is tried again");
        self.retries.failed(task, reason, self.now);
    }

    fn cursor_started(&mut self, index: u32) {
        let Some(port) = self.ports.owner(index / 2).cloned() else {
            return;
        };
        if let Some(state) = self.ports.state_mut(&port) {
            let [cluster, local] = &mut state.unstarted;
            *(if index.is_multiple_of(2) { cluster } else { local }) = false;
        }
    }

    /// What a step is a part of.
    fn task(&self, step: &Step) -> Task {
        let owner = match step {
            Step::PutAddress { address, .. } | Step::DeleteAddress { address } => {
                return Task::Address(*address);
            }
            Step::PutNodePorts { .. } => return Task::NodePorts,
            Step::PutServiceCidrs { .. } => return Task::ServiceCidrs,
            Step::PutLocalSources { .. } => return Task::LocalSources,
            Step::PutBackendState { id, .. }
            | Step::RetireBackend { id }
            | Step::DeleteAffinityBackend { id } => self.ports.backend_owner(*id),
            Step::PutAffinityBackend { row } => self.ports.backend_owner(row.backend.id),
            Step::PutBackend { slot, .. } => self.ports.slot_owner(*slot),
            Step::PutName { id, .. }
            | Step::DeleteName { id }
            | Step::PutSourceRange { id, .. }
            | Step::DeleteSourceRange { id, .. } => self.ports.owner(*id),
            Step::PutCursor { index, .. } => self.ports.owner(index / 2),
            Step::PutService { service, .. } => self.ports.owner(service.id),
            Step::DeleteService { key } if self.distrusted.rows.contains(key) => None,
            Step::DeleteService { key } => self.mirror.service(key).and_then(|row| self.ports.owner(row.id)),
        };
        owner.map_or(Task::CleanUp, |port| Task::Service(port.service.clone()))
    }

    /// Everything an operator should know, sorted by object.
    pub fn problems(&self) -> Vec<Problem> {
        self.problems_with(Vec::new())
    }

    /// The same, with what was found out elsewhere.
    pub fn problems_with(&self, mut problems: Vec<Problem>) -> Vec<Problem> {
        problems.extend(self.objects.problems());
        let name = ObjectName::new("", self.options.node_name.clone());
        let of_ranges = self.options.pod_ranges.problem(self.objects.node());
        problems.extend(of_ranges.map(|what| Problem::new(Kind::Node, &name, what)));
        for (name, refused) in &self.refused {
            let problem = |refusal: &Refusal| Problem {
                of_node: refusal.of_node,
                ..Problem::new(Kind::Service, name, &refusal.what).because(Reason::FrontendRefused)
            };
            problems.extend(refused.iter().map(problem));
        }
        for (task, retry) in self.retries.iter() {
            let problem = self.retry_problem(task, &retry.reason);
            problems.push(problem.because(Reason::FailedToProgram));
        }
        for problem in &mut problems {
            problem.uid = self.objects.uid(problem.kind, &problem.name).map(str::to_owned);
        }
        problems.sort();
        problems.dedup();
        problems
    }

    /// Where load balancers ask for local endpoints, and what they are told; `None` until all lists are complete.
    pub fn health_checks(&self) -> Option<HealthChecks> {
        self.objects.synced().then(|| HealthChecks::of(&self.objects))
    }

    fn retry_problem(&self, task: &Task, reason: &str) -> Problem {
        let node = ObjectName::new("", self.options.node_name.clone());
        match task {
            Task::Service(name) => Problem::new(Kind::Service, name, reason),
            Task::Address(address) => match self.objects.claims().at(*address).next() {
                Some(service) => Problem::new(Kind::Service, service, format!("address {address}: {reason}")),
                None => Problem::new(Kind::Node, &node, format!("address {address}: {reason}")),
            },
            Task::NodePorts => Problem::new(Kind::Node, &node, format!("node port range: {reason}")),
            Task::ServiceCidrs => Problem::new(Kind::Node, &node, format!("ranges of ClusterIPs: {reason}")),
            Task::LocalSources => Problem::new(Kind::Node, &node, format!("ranges of pods: {reason}")),
            Task::CleanUp => Problem::new(Kind::Node, &node, format!("rows of a former agent: {reason}")),
        }
    }

    /// When to plan again although nothing happened; a time that has passed means at once.
    pub fn next_wakeup(&self) -> Option<Duration> {
        if !self.objects.synced() {
            return None;
        }
        let services = self
            .dirty
            .services
            .iter()
            .map(|name| self.retries.due(&Task::Service(name.clone())));
        let addresses = self
            .dirty
            .addresses
            .iter()
            .map(|address| self.retries.due(&Task::Address(*address)));
        let node_ports = addresses::node_ports(&self.mirror, &Planned::default()) != self.mirror.node_ports();
        let node_ports = node_ports.then(|| self.retries.due(&Task::NodePorts));
        let service_cidrs = self.new_service_cidrs().is_some();
        let service_cidrs = service_cidrs.then(|| self.retries.due(&Task::ServiceCidrs));
        let local_sources = self.new_local_sources().is_some();
        let local_sources = local_sources.then(|| self.retries.due(&Task::LocalSources));
        let clean_up = self.has_distrusted_rows() || !self.distrusted.backends.is_empty();
        let clean_up = clean_up.then(|| self.retries.due(&Task::CleanUp));
        let tasks = services.chain(addresses).chain(node_ports);
        let tasks = tasks.chain(service_cidrs).chain(local_sources).chain(clean_up);
        tasks.chain(self.ports.next_expiry()).min()
    }

    /// Counts for status lines.
    pub fn describe(&self) -> Summary {
        let owners = self
            .mirror
            .services()
            .values()
            .filter_map(|row| self.ports.owner(row.id));
        let services: BTreeSet<&ObjectName> = owners.map(|port| &port.service).collect();
        Summary {
            synced: self.objects.synced(),
            services: services.len(),
            frontends: self.mirror.services().len(),
            without_local: self.without_local(),
            backends: self.mirror.serving(),
            pending: self.dirty.services.len(),
            problems: self.problems().len(),
        }
    }
}
