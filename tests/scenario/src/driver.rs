//! Plays the agent: hands changes to the model and its steps to a kernel, until nothing is left to do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proxy_common::Ip;
use proxy_model::{Change, GRACE, Kind, Limits, LocalAddress, Model, Object, ObjectName, Options};

use crate::Kernel;
use crate::case::{Case, Event};
use crate::promises::Promises;

/// The node of every scenario.
pub const NODE: &str = "node-a";

/// How long a story may go on by itself after each event: longer than any grace period, and enough for some retries.
const PATIENCE: Duration = Duration::from_secs(10);

/// An agent without IO.
#[derive(Debug)]
pub struct Driver {
    options: Options,
    /// The model.
    pub model: Model,
    now: Duration,
    objects: BTreeMap<(Kind, ObjectName), Object>,
    local: Vec<Ip>,
    promises: Promises,
    /// The kernel's rows were damaged on purpose: frontends may be away while they are written anew.
    pub mends: bool,
}

impl Driver {
    /// An agent that starts over the rows of a kernel.
    pub fn new(limits: &Limits, kernel: &mut dyn Kernel) -> Result<Self, String> {
        let options = Options {
            limits: *limits,
            ..Options::new(NODE, 7)
        };
        Self::with(options, kernel)
    }

    /// The agent of a case.
    pub fn of(case: &Case, kernel: &mut dyn Kernel) -> Result<Self, String> {
        let options = Options {
            limits: case.limits,
            masquerade: case.masquerade,
            pod_ranges: case.pods.clone(),
            ..Options::new(NODE, 7)
        };
        Self::with(options, kernel)
    }

    fn with(options: Options, kernel: &mut dyn Kernel) -> Result<Self, String> {
        let rows = kernel.rows()?;
        let promises = Promises::new(&rows);
        let model = Model::new(options.clone(), rows);
        Ok(Self {
            options,
            model,
            now: Duration::ZERO,
            objects: BTreeMap::new(),
            local: Vec::new(),
            promises,
            mends: false,
        })
    }

    /// The complete lists at the start.
    pub fn start(&mut self, objects: &[Object], local: &[Ip]) {
        self.objects = objects
            .iter()
            .map(|object| ((object.kind(), object.name()), object.clone()))
            .collect();
        self.local = local.to_vec();
        for change in self.everything() {
            self.model.observe(change);
        }
    }

    /// All that the sources know, as complete lists.
    pub fn everything(&self) -> Vec<Change> {
        let list = |kind: Kind| {
            self.objects
                .iter()
                .filter(|((of, _), _)| *of == kind)
                .map(|(_, object)| object.clone())
                .collect()
        };
        let mut changes: Vec<Change> = Kind::ALL
            .into_iter()
            .map(|kind| Change::Replace(kind, list(kind)))
            .collect();
        changes.push(Change::LocalAddresses(local_addresses(&self.local)));
        changes
    }

    /// One change from a source.
    pub fn observe(&mut self, change: Change) {
        match &change {
            Change::Put(object) => {
                self.objects
                    .insert((object.kind(), object.name()), object.clone());
            }
            Change::Delete(kind, name) => {
                self.objects.remove(&(*kind, name.clone()));
            }
            Change::Replace(kind, list) => {
                self.objects.retain(|(of, _), _| of != kind);
                self.objects
                    .extend(list.iter().map(|object| ((*kind, object.name()), object.clone())));
            }
            Change::LocalAddresses(list) => {
                self.local = list.iter().map(|address| address.ip).collect();
            }
            Change::FrontendsInUse { .. } => {}
        }
        self.model.observe(change);
    }

    /// An event of a scenario.
    pub fn happen(&mut self, event: &Event, kernel: &mut dyn Kernel) -> Result<(), String> {
        match event {
            Event::Put(objects) => objects
                .iter()
                .for_each(|object| self.observe(Change::Put(object.clone()))),
            Event::Delete(names) => {
                for (kind, name) in names {
                    self.observe(Change::Delete(*kind, name.clone()));
                }
            }
            Event::Local(addresses) => {
                self.observe(Change::LocalAddresses(local_addresses(addresses)));
            }
            Event::Flows(addresses) => {
                self.walk(addresses.iter().copied().collect());
            }
            Event::Restart => {
                let rows = kernel.rows()?;
                self.promises = Promises::new(&rows);
                self.model = Model::new(self.options.clone(), rows);
                for change in self.everything() {
                    self.model.observe(change);
                }
            }
        }
        Ok(())
    }

    /// Plans and applies until nothing is left, letting time pass where the model waits.
    pub fn settle(&mut self, kernel: &mut dyn Kernel) -> Result<(), String> {
        self.play(kernel, self.now + PATIENCE)
    }

    /// The same without letting time pass.
    pub fn rush(&mut self, kernel: &mut dyn Kernel) -> Result<(), String> {
        self.play(kernel, self.now)
    }

    fn play(&mut self, kernel: &mut dyn Kernel, end: Duration) -> Result<(), String> {
        for _ in 0..100_000 {
            let plan = self.model.plan(self.now);
            if plan.is_empty() {
                match self.model.next_wakeup() {
                    Some(wakeup) if wakeup <= self.now => {
                        return Err("the model wants to plan, and plans nothing".to_owned());
                    }
                    Some(wakeup) if wakeup <= end => self.now = wakeup,
                    _ if self.mends => return Ok(()),
                    _ => return self.promises.quiet(),
                }
            }
            for step in plan {
                self.promises.before(&step, self.now)?;
                if let Err(reason) = kernel.apply(&step) {
                    self.model.failed(&step, reason);
                    break;
                }
                self.promises.after(&step, self.now);
                self.model.applied(&step);
            }
        }
        Err("the plans never end".to_owned())
    }

    /// The flow sweeper walks, a while after the last step, and finds flows that use these frontend addresses.
    pub fn walk(&mut self, frontends: BTreeSet<Ip>) {
        self.wait(GRACE);
        self.observe(Change::FrontendsInUse {
            began: self.now,
            frontends,
        });
    }

    /// Lets time pass.
    pub fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// Applies the beginning of a plan; then the agent is killed, and another one starts.
    pub fn crash(&mut self, steps: usize, kernel: &mut dyn Kernel) -> Result<(), String> {
        for step in self.model.plan(self.now).iter().take(steps) {
            if kernel.apply(step).is_err() {
                break;
            }
        }
        self.happen(&Event::Restart, kernel)
    }

    /// What an operator is told.
    pub fn problems(&self) -> String {
        let lines: Vec<String> = self.model.problems().iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    /// An agent that starts now, with the same objects, must write nothing.
    pub fn check_restart(&self, kernel: &mut dyn Kernel) -> Result<(), String> {
        let mut model = Model::new(self.options.clone(), kernel.rows()?);
        for change in self.everything() {
            let early = model.plan(Duration::ZERO);
            if !early.is_empty() && !matches!(change, Change::LocalAddresses(_)) {
                return Err(format!("a plan before all lists are complete: {early:?}"));
            }
            model.observe(change);
        }
        let plan = model.plan(Duration::ZERO);
        if plan.is_empty() {
            Ok(())
        } else {
            Err(format!("a restart writes although nothing changed: {plan:#?}"))
        }
    }
}

/// As the agent tells them.
pub fn local_addresses(addresses: &[Ip]) -> Vec<LocalAddress> {
    addresses
        .iter()
        .map(|ip| LocalAddress {
            ip: *ip,
            interface: 2,
        })
        .collect()
}
