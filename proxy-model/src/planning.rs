//! The parts of a plan, one function each, in the order in which [`Model::plan`] puts them together.

use std::collections::BTreeSet;

use proxy_common::{LocalSources, ServiceCidrs, ServiceKey};

use crate::addresses::{self, Planned};
use crate::desired::{self, Desired};
use crate::model::Model;
use crate::object::ObjectName;
use crate::plan::Step;
use crate::reconcile::{Reconcile, Stages};
use crate::retry::Task;
use crate::room::{Room, Shortage};
use crate::staying;

/// Something does not fit.
struct Short;

impl Model {
    /// Rows that nobody can vouch for go first, alone: new rows could share slots with them.
    pub(crate) fn plan_clean_up(&mut self) -> Vec<Step> {
        if !self.retries.is_due(&Task::CleanUp, self.now) {
            return Vec::new();
        }
        let rows = self
            .distrusted
            .rows
            .iter()
            .map(|key| Step::DeleteService { key: *key });
        let names = self.distrusted.names.iter();
        let names = names.map(|id| Step::DeleteName { id: *id });
        let affinity = self.distrusted.affinity_backends.iter();
        let affinity = affinity.map(|id| Step::DeleteAffinityBackend { id: *id });
        let sources = self.distrusted.sources.iter();
        let sources = sources.map(|(id, range)| Step::DeleteSourceRange {
            id: *id,
            range: *range,
        });
        rows.chain(names).chain(affinity).chain(sources).collect()
    }

    pub(crate) fn has_distrusted_rows(&self) -> bool {
        let distrusted = &self.distrusted;
        !distrusted.rows.is_empty()
            || !distrusted.names.is_empty()
            || !distrusted.affinity_backends.is_empty()
            || !distrusted.sources.is_empty()
    }

    /// The steps of all dirty Services, and the names that go at the end.
    pub(crate) fn plan_services(&mut self) -> (Vec<Step>, Vec<Step>) {
        let mut room = Room {
            rows: self
                .options
                .limits
                .services
                .saturating_sub(self.mirror.services().len()),
            addresses: self
                .options
                .limits
                .addresses
                .saturating_sub(self.mirror.addresses().len()),
        };
        let (mut steps, mut forget) = (Vec::new(), Vec::new());
        let mut short = BTreeSet::new();
        let dirty = std::mem::take(&mut self.dirty.services);
        let mut all_stages = Vec::new();
        for name in dirty {
            match self.plan_if_due(&name, &mut room) {
                Ok(stages) => all_stages.extend(stages),
                Err(Short) => {
                    short.insert(name);
                }
            }
        }
        if !short.is_empty() {
            all_stages.extend(self.make_room(&short, &mut room));
        }
        for stages in all_stages {
            let Stages {
                prepare,
                publish,
                withdraw,
                retire,
                forget: names,
            } = stages;
            steps.extend([prepare, publish, withdraw, retire].into_iter().flatten());
            forget.extend(names);
        }
        (steps, forget)
    }

    /// The steps of a Service, if there are any; it stays dirty until there are none.
    fn plan_if_due(&mut self, name: &ObjectName, room: &mut Room) -> Result<Option<Stages>, Short> {
        let task = Task::Service(name.clone());
        if !self.retries.is_due(&task, self.now) {
            self.dirty.services.insert(name.clone());
            return Ok(None);
        }
        match self.plan_service(name, room) {
            Ok(stages) if stages.is_empty() => {
                self.retries.succeeded(&task);
                Ok(None)
            }
            Ok(stages) => {
                self.dirty.services.insert(name.clone());
                Ok(Some(stages))
            }
            Err(shortage) => {
                self.waiting_for_room.insert(name.clone());
                let is_served = self.is_served(name);
                self.retries.failed(task, shortage.sentence(is_served), self.now);
                self.dirty.services.insert(name.clone());
                Err(Short)
            }
        }
    }

    /// Whether a frontend of a Service is in the kernel.
    fn is_served(&self, name: &ObjectName) -> bool {
        let keys = self.ports.keys(name);
        let ids = keys.iter().filter_map(|key| Some(self.ports.state(key)?.id));
        ids.into_iter().any(|id| self.mirror.rows_of(id).next().is_some())
    }

    /// Somebody waits for room: flows of Services that have no frontend any more are worth less.
    fn make_room(&mut self, short: &BTreeSet<ObjectName>, room: &mut Room) -> Vec<Stages> {
        let all: Vec<ObjectName> = self.ports.services().cloned().collect();
        let mut stages = Vec::new();
        for name in all {
            // What is dirty for another reason has its steps already, or is tried later.
            let busy = self.dirty.services.contains(&name) && !short.contains(&name);
            if busy || self.is_served(&name) {
                continue;
            }
            let mut reconcile = Reconcile {
                ports: &mut self.ports,
                mirror: &self.mirror,
                objects: &self.objects,
                crowded: true,
                seed: self.options.seed,
                masquerade: self.options.masquerade,
                now: self.now,
            };
            if let Ok(evicted) = reconcile.service(&name, &Desired::default(), room, |_| false)
                && !evicted.is_empty()
            {
                stages.push(evicted);
                self.dirty.services.insert(name);
            }
        }
        stages
    }

    fn plan_service(&mut self, name: &ObjectName, room: &mut Room) -> Result<Stages, Shortage> {
        let mut desired = Desired::of(&self.objects, name);
        if desired.refusals.is_empty() {
            self.refused.remove(name);
        } else {
            self.refused.insert(name.clone(), desired.refusals.clone());
        }
        staying::rename(&mut self.ports, &self.mirror, &desired);
        staying::drain(&self.objects, &self.ports, &self.mirror, &mut desired);
        let objects = &self.objects;
        let elsewhere = |key: &ServiceKey| {
            desired
                .ports
                .iter()
                .any(|port| port.frontends.iter().any(|frontend| frontend.key == *key))
                || desired::is_servable(objects, key)
                    && objects
                        .claims()
                        .winner(key)
                        .is_some_and(|(winner, _)| winner != name)
        };
        let mut reconcile = Reconcile {
            ports: &mut self.ports,
            mirror: &self.mirror,
            objects,
            crowded: false,
            seed: self.options.seed,
            masquerade: self.options.masquerade,
            now: self.now,
        };
        reconcile.service(name, &desired, room, elsewhere)
    }

    pub(crate) fn plan_addresses(&mut self, planned: &Planned) -> Vec<Step> {
        self.dirty.addresses.extend(planned.addresses());
        let mut steps = Vec::new();
        for address in std::mem::take(&mut self.dirty.addresses) {
            let task = Task::Address(address);
            match self.addresses.step(address, &self.objects, &self.mirror, planned) {
                None => self.retries.succeeded(&task),
                Some(step) => {
                    self.dirty.addresses.insert(address);
                    steps.extend(self.retries.is_due(&task, self.now).then_some(step));
                }
            }
        }
        steps
    }

    pub(crate) fn plan_node_ports(&mut self, planned: &Planned) -> Option<Step> {
        let (first, last) = addresses::node_ports(&self.mirror, planned);
        let wanted =
            self.mirror.node_ports() != (first, last) && self.retries.is_due(&Task::NodePorts, self.now);
        wanted.then_some(Step::PutNodePorts { first, last })
    }

    /// After the rows of Services and addresses: what has none is dropped from then on.
    pub(crate) fn plan_service_cidrs(&mut self) -> Option<Step> {
        let due = self.retries.is_due(&Task::ServiceCidrs, self.now);
        let row = self.new_service_cidrs().filter(|_| due)?;
        Some(Step::PutServiceCidrs { row })
    }

    /// The row of `SERVICE_CIDRS`, if it has to change.
    pub(crate) fn new_service_cidrs(&self) -> Option<ServiceCidrs> {
        let row = self.objects.service_cidrs()?;
        (row != self.mirror.service_cidrs()).then_some(row)
    }

    pub(crate) fn plan_local_sources(&mut self) -> Option<Step> {
        let due = self.retries.is_due(&Task::LocalSources, self.now);
        let row = self.new_local_sources().filter(|_| due)?;
        Some(Step::PutLocalSources { row })
    }

    /// The row of `LOCAL_SOURCES`, if it has to change.
    pub(crate) fn new_local_sources(&self) -> Option<LocalSources> {
        let row = self.options.pod_ranges.row(self.objects.node())?;
        (row != self.mirror.local_sources()).then_some(row)
    }

    /// Backends of a former agent that belong to nobody.
    pub(crate) fn plan_orphans(&mut self) -> Vec<Step> {
        let (serving, out): (BTreeSet<u32>, BTreeSet<u32>) = std::mem::take(&mut self.distrusted.backends)
            .into_iter()
            .partition(|id| self.mirror.is_serving(*id));
        for id in out {
            self.ports.release_backend(id, self.now);
        }
        let due = self.retries.is_due(&Task::CleanUp, self.now);
        let steps = serving
            .iter()
            .filter(|_| due)
            .map(|id| Step::RetireBackend { id: *id })
            .collect();
        self.distrusted.backends = serving;
        steps
    }
}
