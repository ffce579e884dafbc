//! What objects ask the ingress to do: routes, endpoints, certificates; who wins; what is wrong.
//!
//! ```text
//!  IngressClass ──▶ class.rs     ours?
//!  Ingress ───────▶ ingress.rs   routes, annotations.rs policies, tls.rs certificates, doors.rs connections
//!  Service ───────▶ service.rs   ports by name and number
//!  EndpointSlice ─▶ endpoints.rs which pods
//!         │
//!         ▼  refresh.rs  only what was touched
//!  hosts.rs who has a host or path ──▶ Changed: table, backends, certificates, problems, conflicts
//! ```
//!
//! Pure: objects in, answers out. Work is proportional to what changed: an Ingress is read again if it, its class or one of its
//! Services is different, a host is built again if one of its routes is, a backend is looked at if its slices are.

pub mod annotations;
pub mod class;
pub mod doors;
pub mod endpoints;
pub mod hosts;
pub mod ingress;
mod refresh;
pub mod service;
#[cfg(test)]
mod story;
#[cfg(test)]
mod tests;
pub mod tls;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::sync::Arc;

use proxy_model::api::{ApiEndpointSlice, ApiIngress, ApiIngressClass, ApiService};
use proxy_model::{Kind, Object, ObjectName, Problem};

use crate::route::path::PathOptions;
use crate::route::{Backend, HealthCheck, HostMatch, Origin, Route, Table};
use class::{ClassOptions, Classes, Verdict};
use doors::{Demand, Demands, Pass, Passes};
use endpoints::{BackendState, KeptSlice};
use hosts::{Conflict, HostOwnership};
use ingress::Read;
use service::Service;
use tls::{Certificates, Wish};

/// Without complete lists of these nothing is served: what is not heard of yet would be answered with an error.
pub const NEEDED: [Kind; 4] = [
    Kind::IngressClass,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Ingress,
];

/// What is a matter of the process, not of an object.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Whom it serves.
    pub classes: ClassOptions,
    /// Who may have paths of a host.
    pub ownership: HostOwnership,
    /// The canonical form of paths; requests must be brought to the same.
    pub paths: PathOptions,
}

/// All objects, and what they come to.
#[derive(Debug, Default)]
pub struct Model {
    options: Options,
    classes: Classes,
    ingresses: BTreeMap<ObjectName, Known>,
    services: HashMap<ObjectName, Service>,
    /// Slices by the Service that they name, there or not; then by their own name.
    slices: HashMap<ObjectName, BTreeMap<String, KeptSlice>>,
    /// The Service that each slice names.
    owners: HashMap<ObjectName, ObjectName>,
    /// The Ingresses that name each Service.
    users: HashMap<ObjectName, BTreeSet<ObjectName>>,
    hosts: HashMap<HostMatch, Host>,
    backends: BTreeMap<Backend, Used>,
    table: Table,
    certificates: Certificates,
    passes: Passes,
    demands: Demands,
    /// Only objects that have some.
    problems: BTreeMap<(Kind, ObjectName), Vec<Problem>>,
    /// Only hosts that have some.
    conflicts: BTreeMap<HostMatch, BTreeSet<Conflict>>,
    synced: BTreeSet<Kind>,
    dirty: Dirty,
}

/// An Ingress.
#[derive(Debug)]
struct Known {
    /// Without what is of no use here.
    object: ApiIngress,
    verdict: Verdict,
    /// What it comes to, as of the last look.
    read: Read,
    /// To be forgotten at the next look.
    deleted: bool,
}

/// What Ingresses ask of a host.
#[derive(Debug, Default)]
struct Host {
    routes: BTreeMap<ObjectName, Vec<Arc<Route>>>,
    wishes: BTreeSet<Wish>,
    passes: BTreeMap<Origin, Pass>,
    demands: BTreeSet<Demand>,
    /// Routes are other ones than at the last look.
    moved: bool,
}

/// A backend that routes lead to.
#[derive(Debug, Default)]
struct Used {
    routes: usize,
    /// What routes want of health checks; the oldest has the say.
    checks: BTreeMap<Origin, HealthCheck>,
    /// As of the last look.
    state: Option<BackendState>,
}

/// What has to be looked at again.
#[derive(Debug, Default)]
struct Dirty {
    ingresses: BTreeSet<ObjectName>,
    /// Services whose endpoints may be different.
    services: BTreeSet<ObjectName>,
    hosts: BTreeSet<HostMatch>,
    problems: bool,
}

/// What is different since the last time.
#[derive(Clone, Debug, Default)]
pub struct Changed {
    /// All routes, if one is.
    pub table: Option<Table>,
    /// Backends that are, each whole; none: nobody uses it any more.
    pub backends: Vec<(Backend, Option<BackendState>)>,
    /// All certificates, if one is.
    pub certificates: Option<Certificates>,
    /// All hosts that are passed through, if one is different.
    pub passes: Option<Passes>,
    /// All hosts whose clients show a certificate, if one is different.
    pub demands: Option<Demands>,
    /// All problems, if one is.
    pub problems: Option<Vec<Problem>>,
    /// All conflicts, if one is.
    pub conflicts: Option<Vec<Conflict>>,
}

impl Changed {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.table.is_none()
            && self.backends.is_empty()
            && self.certificates.is_none()
            && self.passes.is_none()
            && self.demands.is_none()
            && self.problems.is_none()
            && self.conflicts.is_none()
    }
}

impl Model {
    /// Without an object.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    /// An object is new or different. Kinds that are of no use here are ignored, and what is in Secrets is not looked at.
    pub fn put(&mut self, object: &Object) {
        let name = object.name();
        match object {
            Object::Ingress(ingress) => self.put_ingress(name, ingress),
            Object::IngressClass(class) => self.put_class(&name, class),
            Object::Service(service) => self.put_service(name, service),
            Object::EndpointSlice(slice) => self.put_slice(name, slice),
            Object::Node(_) | Object::ServiceCidr(_) | Object::Secret(_) => {}
        }
    }

    /// An object is gone.
    pub fn delete(&mut self, kind: Kind, name: &ObjectName) {
        match kind {
            Kind::Ingress => {
                if let Some(known) = self.ingresses.get_mut(name) {
                    // Read again as nobody's, and then forgotten.
                    known.deleted = true;
                    known.verdict = Verdict::Others;
                    self.dirty.ingresses.insert(name.clone());
                }
            }
            Kind::IngressClass => {
                if self.classes.delete(&name.name) {
                    self.judge_all();
                }
            }
            Kind::Service => {
                if self.services.remove(name).is_some() {
                    self.touch_service(name);
                }
            }
            Kind::EndpointSlice => self.drop_slice(name),
            Kind::Node | Kind::ServiceCidr | Kind::Secret => {}
        }
    }

    /// The complete list of a kind.
    pub fn replace(&mut self, kind: Kind, list: &[Object]) {
        let listed: BTreeSet<ObjectName> = list
            .iter()
            .filter(|object| object.kind() == kind)
            .map(Object::name)
            .collect();
        let known: Vec<ObjectName> = match kind {
            Kind::Ingress => self.ingresses.keys().cloned().collect(),
            Kind::IngressClass => self
                .classes
                .names()
                .map(|name| ObjectName::new("", name))
                .collect(),
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::EndpointSlice => self.owners.keys().cloned().collect(),
            Kind::Node | Kind::ServiceCidr | Kind::Secret => Vec::new(),
        };
        for name in known.iter().filter(|name| !listed.contains(name)) {
            self.delete(kind, name);
        }
        for object in list.iter().filter(|object| object.kind() == kind) {
            self.put(object);
        }
        self.synced.insert(kind);
    }

    /// Whether complete lists of all kinds that are needed have been seen.
    pub fn synced(&self) -> bool {
        NEEDED.iter().all(|kind| self.synced.contains(kind))
    }

    /// The `metadata.uid` of an Ingress.
    pub fn uid(&self, ingress: &ObjectName) -> Option<&str> {
        self.ingresses.get(ingress)?.object.metadata.uid.as_deref()
    }

    /// The Ingresses that are ours: who publishes their status needs them.
    pub fn ours(&self) -> impl Iterator<Item = &ObjectName> {
        let ours = self
            .ingresses
            .iter()
            .filter(|(_, known)| matches!(known.verdict, Verdict::Ours(_)));
        ours.map(|(name, _)| name)
    }

    fn put_ingress(&mut self, name: ObjectName, ingress: &ApiIngress) {
        let object = stripped(ingress);
        let before = self.ingresses.get_mut(&name);
        if before
            .as_ref()
            .is_some_and(|known| known.object == object && !known.deleted)
        {
            return;
        }
        let verdict = self.classes.judge(&object, &self.options.classes);
        let read = before.map(|known| mem::take(&mut known.read)).unwrap_or_default();
        let known = Known {
            object,
            verdict,
            read,
            deleted: false,
        };
        self.ingresses.insert(name.clone(), known);
        self.dirty.ingresses.insert(name);
    }

    fn put_class(&mut self, name: &ObjectName, class: &ApiIngressClass) {
        if self.classes.put(&name.name, class) {
            self.judge_all();
        }
    }

    /// A class is different: whose are the Ingresses now?
    fn judge_all(&mut self) {
        for (name, known) in self.ingresses.iter_mut().filter(|(_, known)| !known.deleted) {
            let verdict = self.classes.judge(&known.object, &self.options.classes);
            if verdict != known.verdict {
                known.verdict = verdict;
                self.dirty.ingresses.insert(name.clone());
            }
        }
        self.tell_classes();
    }

    fn put_service(&mut self, name: ObjectName, object: &ApiService) {
        let service = Service::read(object);
        if self.services.get(&name) != Some(&service) {
            self.touch_service(&name);
            self.services.insert(name, service);
        }
    }

    fn touch_service(&mut self, name: &ObjectName) {
        self.dirty.services.insert(name.clone());
        self.dirty
            .ingresses
            .extend(self.users.get(name).into_iter().flatten().cloned());
    }

    fn put_slice(&mut self, name: ObjectName, object: &ApiEndpointSlice) {
        let Some(slice) = KeptSlice::read(object) else {
            return self.drop_slice(&name);
        };
        let owner = ObjectName::new(name.namespace.clone(), slice.service());
        if self.owners.get(&name).is_some_and(|before| *before != owner) {
            self.drop_slice(&name);
        }
        let siblings = self.slices.entry(owner.clone()).or_default();
        if siblings.get(&name.name) != Some(&slice) {
            siblings.insert(name.name.clone(), slice);
            self.owners.insert(name, owner.clone());
            self.dirty.services.insert(owner);
        }
    }

    fn drop_slice(&mut self, name: &ObjectName) {
        let Some(owner) = self.owners.remove(name) else {
            return;
        };
        if let Some(siblings) = self.slices.get_mut(&owner) {
            siblings.remove(&name.name);
            if siblings.is_empty() {
                self.slices.remove(&owner);
            }
        }
        self.dirty.problems |= self
            .problems
            .remove(&(Kind::EndpointSlice, name.clone()))
            .is_some();
        self.dirty.services.insert(owner);
    }
}

/// Without labels, others' annotations and status: those are most of many objects.
fn stripped(ingress: &ApiIngress) -> ApiIngress {
    let mut object = ApiIngress {
        spec: ingress.spec.clone(),
        ..ApiIngress::default()
    };
    object.metadata.uid.clone_from(&ingress.metadata.uid);
    object
        .metadata
        .creation_timestamp
        .clone_from(&ingress.metadata.creation_timestamp);
    let used = |name: &str| name.starts_with(annotations::PREFIX) || name == class::ANNOTATION;
    let annotations = ingress.metadata.annotations.iter().flatten();
    let annotations = annotations.filter(|(name, _)| used(name));
    object.metadata.annotations = Some(
        annotations
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    );
    object
}
