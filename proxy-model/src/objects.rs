//! What the sources have said so far, and who is touched when they say something new.

mod this_node;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use proxy_common::{Ip, ServiceCidrs, ServiceKey};

use crate::address;
use crate::age::Created;
use crate::api::{ApiEndpointSlice, ApiService};
use crate::change::Options;
use crate::claims::Claims;
use crate::frontend::{Frontend, wishes};
use crate::node::Node;
use crate::node_ports::NodePortAddresses;
use crate::object::{Kind, Object, ObjectName};
use crate::problem::Problem;
use crate::service::{Service, is_not_ours};
use crate::service_cidrs::{Elsewhere, Ranges};
use crate::slice::Slice;

/// What has to be looked at again.
#[derive(Debug, Default)]
pub struct Dirty {
    /// Services whose rows may have to change.
    pub services: BTreeSet<ObjectName>,
    /// Addresses whose row may have to change.
    pub addresses: BTreeSet<Ip>,
    /// Frontends that a Service asked for until now.
    pub frontends: Vec<ServiceKey>,
    /// Something else is different: what people are told, or whether all lists are complete.
    pub other: bool,
}

impl Dirty {
    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.addresses.is_empty() && !self.other
    }
}

/// The objects, in our words.
#[derive(Debug)]
pub struct Objects {
    node_name: String,
    services: HashMap<ObjectName, Service>,
    /// Slices by the Service that they name, there or not; then by their own name.
    slices: HashMap<ObjectName, BTreeMap<String, Slice>>,
    /// The Service that each slice names.
    owners: HashMap<ObjectName, ObjectName>,
    /// What is wrong with slices that are not read at all.
    unread: BTreeMap<ObjectName, String>,
    node: Option<Node>,
    service_cidrs: Ranges,
    elsewhere: Elsewhere,
    local: Option<BTreeSet<Ip>>,
    claims: Claims,
    synced: BTreeSet<Kind>,
    /// Every object that is there, with its `uid`.
    names: HashMap<Kind, HashMap<ObjectName, Option<String>>>,
    node_port_addresses: NodePortAddresses,
    external_ips: bool,
    only_own_node: bool,
    localhost_node_ports: bool,
    /// Addresses of this node, as its Node named them last.
    named: Option<BTreeSet<Ip>>,
    /// API servers that were named.
    api_servers: BTreeSet<Ip>,
}

/// The Service whose endpoints are the API servers.
fn api_servers() -> ObjectName {
    ObjectName::new("default", "kubernetes")
}

/// The API servers that a slice tells of.
fn api_servers_of(owner: &ObjectName, slice: Option<&Slice>) -> Vec<Ip> {
    let slice = slice.filter(|_| *owner == api_servers());
    let endpoints = slice.into_iter().flat_map(|slice| &slice.endpoints);
    endpoints.map(|endpoint| endpoint.address).collect()
}

impl Objects {
    /// Nothing said yet.
    pub fn new(options: &Options) -> Self {
        Self {
            node_name: options.node_name.clone(),
            services: HashMap::new(),
            slices: HashMap::new(),
            owners: HashMap::new(),
            unread: BTreeMap::new(),
            node: None,
            service_cidrs: Ranges::default(),
            elsewhere: Elsewhere::default(),
            local: None,
            claims: Claims::default(),
            synced: BTreeSet::new(),
            names: HashMap::new(),
            node_port_addresses: options.node_port_addresses.clone(),
            external_ips: options.external_ips,
            only_own_node: options.only_own_node,
            localhost_node_ports: options.localhost_node_ports,
            named: None,
            api_servers: options.api_servers.clone(),
        }
    }

    /// A Service by name.
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name)
    }

    /// All Services, in no order.
    pub fn services(&self) -> impl Iterator<Item = (&ObjectName, &Service)> {
        self.services.iter()
    }

    /// The `uid` of an object.
    pub fn uid(&self, kind: Kind, name: &ObjectName) -> Option<&str> {
        self.names.get(&kind)?.get(name)?.as_deref()
    }

    /// The slices of a Service, in the order of their names.
    pub fn slices(&self, service: &ObjectName) -> impl Iterator<Item = &Slice> {
        self.slices.get(service).into_iter().flat_map(BTreeMap::values)
    }

    /// Who gets which frontend.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// This node.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// The zone of this node.
    pub fn zone(&self) -> Option<&str> {
        self.node.as_ref()?.zone.as_deref()
    }

    /// The addresses of this node's interfaces; `None` before they were told.
    pub fn local(&self) -> Option<&BTreeSet<Ip>> {
        self.local.as_ref()
    }

    /// Whether an address is one of this node's interfaces'.
    pub fn is_local(&self, address: Ip) -> bool {
        self.local.as_ref().is_some_and(|local| local.contains(&address))
    }

    /// Whether an address is an API server's: one that was named, or an endpoint of the Service `kubernetes`.
    pub fn is_api_server(&self, address: Ip) -> bool {
        let slices = self.slices.get(&api_servers()).into_iter();
        let mut told = slices
            .flat_map(BTreeMap::values)
            .flat_map(|slice| &slice.endpoints);
        self.api_servers.contains(&address) || told.any(|endpoint| endpoint.address == address)
    }

    /// The ranges that ClusterIPs are given out of; `None` before they were told.
    pub fn service_cidrs(&self) -> Option<ServiceCidrs> {
        let told = self.synced.contains(&Kind::ServiceCidr);
        told.then(|| self.service_cidrs.row())
    }

    /// Whether an address is the ClusterIP of another proxy's Service.
    pub fn is_elsewhere(&self, address: Ip) -> bool {
        self.elsewhere.has(address)
    }

    /// Whether complete lists of all kinds that are needed have been seen.
    pub fn synced(&self) -> bool {
        Kind::NEEDED.iter().all(|kind| self.synced.contains(kind))
    }

    /// An object is new or different.
    pub fn put(&mut self, object: &Object, dirty: &mut Dirty) {
        let name = object.name();
        let uid = object.metadata().uid.clone();
        let names = self.names.entry(object.kind()).or_default();
        let before = names.insert(name.clone(), uid.clone());
        // Made again while nobody looked: another object, whatever it says.
        let new = before.is_none();
        dirty.other |= before.is_some_and(|before| before != uid);
        match object {
            Object::Service(service) => self.put_service(name, service, dirty),
            Object::EndpointSlice(slice) => self.put_slice(name, slice, dirty),
            Object::Node(node) if name.name == self.node_name => {
                self.put_node(Some(Node::read(node)), dirty);
            }
            Object::ServiceCidr(cidr) => dirty.other |= self.service_cidrs.put(&name, cidr),
            // Who is there is told while the own Node is not, and that there are Nodes at all.
            Object::Node(_) => self.note_other_node(new, dirty),
            Object::Ingress(_) | Object::IngressClass(_) | Object::Secret(_) => {}
        }
    }

    /// An object is gone.
    pub fn delete(&mut self, kind: Kind, name: &ObjectName, dirty: &mut Dirty) {
        if let Some(names) = self.names.get_mut(&kind) {
            names.remove(name);
        }
        match kind {
            Kind::Service => self.forget_service(name, dirty),
            Kind::EndpointSlice => self.forget_slice(name, dirty),
            Kind::Node if name.name == self.node_name => self.put_node(None, dirty),
            Kind::ServiceCidr => dirty.other |= self.service_cidrs.delete(name),
            Kind::Node => self.note_other_node(true, dirty),
            Kind::Ingress | Kind::IngressClass | Kind::Secret => {}
        }
    }

    /// The complete list of a kind.
    pub fn replace(&mut self, kind: Kind, list: &[Object], dirty: &mut Dirty) {
        let listed: HashSet<ObjectName> = list
            .iter()
            .filter(|object| object.kind() == kind)
            .map(Object::name)
            .collect();
        let known = self.names.get(&kind).into_iter().flat_map(HashMap::keys);
        let gone: Vec<ObjectName> = known.filter(|name| !listed.contains(name)).cloned().collect();
        for name in gone {
            self.delete(kind, &name, dirty);
        }
        for object in list.iter().filter(|object| object.kind() == kind) {
            self.put(object, dirty);
        }
        dirty.other |= self.synced.insert(kind);
    }

    /// The complete list of the addresses of this node's interfaces.
    pub fn set_local(&mut self, addresses: BTreeSet<Ip>, dirty: &mut Dirty) {
        let addresses: BTreeSet<Ip> = addresses
            .into_iter()
            .filter(|ip| address::refusal(*ip).is_none())
            .collect();
        let before = self.local.replace(addresses.clone());
        dirty.other |= before.is_none();
        let before = before.unwrap_or_default();
        for address in before.symmetric_difference(&addresses) {
            dirty.addresses.insert(*address);
            dirty.services.extend(self.claims.at(*address).cloned());
        }
    }

    fn put_service(&mut self, name: ObjectName, object: &ApiService, dirty: &mut Dirty) {
        let others = is_not_ours(&object.metadata).then_some(object);
        dirty.addresses.extend(self.elsewhere.set(&name, others));
        let Some(service) = Service::read(object, self.external_ips) else {
            return self.drop_service(&name, dirty);
        };
        if self.services.get(&name) == Some(&service) {
            return;
        }
        self.claim(&name, service.created, &wishes(&service), dirty);
        self.services.insert(name.clone(), service);
        dirty.services.insert(name);
    }

    fn forget_service(&mut self, name: &ObjectName, dirty: &mut Dirty) {
        dirty.addresses.extend(self.elsewhere.set(name, None));
        self.drop_service(name, dirty);
    }

    fn drop_service(&mut self, name: &ObjectName, dirty: &mut Dirty) {
        if self.services.remove(name).is_some() {
            self.claim(name, Created::UNKNOWN, &[], dirty);
            dirty.services.insert(name.clone());
        }
    }

    fn claim(
        &mut self,
        name: &ObjectName,
        created: Created,
        wishes: &[(Frontend, usize)],
        dirty: &mut Dirty,
    ) {
        dirty.frontends.extend(self.claims.of(name));
        dirty.services.extend(self.claims.set(name, created, wishes));
    }

    fn put_slice(&mut self, name: ObjectName, object: &ApiEndpointSlice, dirty: &mut Dirty) {
        let complaint = Slice::complaint(object);
        dirty.other |= self.unread.get(&name) != complaint.as_ref();
        match complaint {
            Some(complaint) => self.unread.insert(name.clone(), complaint),
            None => self.unread.remove(&name),
        };
        let Some(slice) = Slice::read(object, &self.node_name) else {
            return self.drop_slice(&name, dirty);
        };
        let owner = ObjectName::new(name.namespace.clone(), slice.service.clone());
        if self.owners.get(&name).is_some_and(|before| *before != owner) {
            self.drop_slice(&name, dirty);
        }
        let siblings = self.slices.entry(owner.clone()).or_default();
        if siblings.get(&name.name) != Some(&slice) {
            let now = api_servers_of(&owner, Some(&slice));
            let before = siblings.insert(name.name.clone(), slice);
            self.owners.insert(name, owner.clone());
            self.note_api_servers(api_servers_of(&owner, before.as_ref()), dirty);
            self.note_api_servers(now, dirty);
            dirty.services.insert(owner);
        }
    }

    /// Who asks for an API server's address is looked at again.
    fn note_api_servers(&self, addresses: Vec<Ip>, dirty: &mut Dirty) {
        let asking = addresses.into_iter().flat_map(|address| self.claims.at(address));
        dirty.services.extend(asking.cloned());
    }

    fn forget_slice(&mut self, name: &ObjectName, dirty: &mut Dirty) {
        dirty.other |= self.unread.remove(name).is_some();
        self.drop_slice(name, dirty);
    }

    fn drop_slice(&mut self, name: &ObjectName, dirty: &mut Dirty) {
        let Some(owner) = self.owners.remove(name) else {
            return;
        };
        if let Some(siblings) = self.slices.get_mut(&owner) {
            let before = siblings.remove(&name.name);
            if siblings.is_empty() {
                self.slices.remove(&owner);
            }
            self.note_api_servers(api_servers_of(&owner, before.as_ref()), dirty);
        }
        dirty.services.insert(owner);
    }

    /// What is wrong with the objects themselves.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (name, service) in &self.services {
            let said = service.problems.iter();
            problems.extend(said.map(|what| Problem::new(Kind::Service, name, what)));
        }
        for (service, slices) in &self.slices {
            for (name, slice) in slices {
                let name = ObjectName::new(service.namespace.clone(), name.clone());
                problems.extend(
                    slice
                        .problems
                        .iter()
                        .map(|what| Problem::new(Kind::EndpointSlice, &name, what)),
                );
            }
        }
        problems.extend(
            self.unread
                .iter()
                .map(|(name, what)| Problem::new(Kind::EndpointSlice, name, what)),
        );
        problems.extend(self.service_cidrs.problems());
        problems.extend(self.node_problems());
        problems
    }
}
