//! What follows from what was touched: Ingresses are read, hosts settled, backends looked at, and what is different is told.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use proxy_model::{Kind, ObjectName, Problem};

use super::class::Verdict;
use super::doors::{Demand, Pass};
use super::hosts::{self, Conflict, HostOwnership};
use super::ingress::{self, Read};
use super::tls::Wish;
use super::{Changed, Host, Model, doors, endpoints};
use crate::route::{Action, Backend, HealthCheck, HostMatch, Origin, Route};

impl Model {
    /// What is different since the last time; nothing until all lists are complete.
    pub fn changes(&mut self) -> Changed {
        let mut changed = Changed::default();
        if !self.synced() {
            return changed;
        }
        for name in mem::take(&mut self.dirty.ingresses) {
            self.read_again(&name);
        }
        self.settle_hosts(&mut changed);
        for service in mem::take(&mut self.dirty.services) {
            self.look_at(&service, &mut changed);
        }
        if mem::take(&mut self.dirty.problems) {
            changed.problems = Some(self.problems());
        }
        changed
    }

    /// All that an operator should know, by object.
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.values().flatten().cloned().collect()
    }

    /// All that was asked for in vain, by host.
    pub fn conflicts(&self) -> Vec<Conflict> {
        self.conflicts.values().flatten().cloned().collect()
    }

    fn read_again(&mut self, name: &ObjectName) {
        let Some(known) = self.ingresses.get(name) else {
            return;
        };
        let read = match &known.verdict {
            Verdict::Ours(remark) => {
                let services = |name: &ObjectName| self.services.get(name);
                let mut read = ingress::read(name, &known.object, self.options.paths, &services);
                read.problems.extend(remark.clone());
                read
            }
            Verdict::Others => Read::default(),
            Verdict::Gone(what) => Read {
                problems: vec![what.clone()],
                ..Read::default()
            },
        };
        let (uid, gone) = (known.object.metadata.uid.clone(), known.deleted);
        self.tell(Kind::Ingress, name, uid.as_deref(), &read.problems);
        let before = match self.ingresses.get_mut(name) {
            Some(known) => mem::replace(&mut known.read, read.clone()),
            None => Read::default(),
        };
        self.move_routes(name, &before, &read);
        self.move_wishes(&before.wishes, &read.wishes);
        self.move_doors(&before, &read);
        self.move_services(name, &before.services, &read.services);
        self.move_backends(&before, &read);
        if gone {
            self.ingresses.remove(name);
        }
    }

    /// Notes what is wrong with our classes.
    pub(super) fn tell_classes(&mut self) {
        let known = self
            .problems
            .keys()
            .filter(|(kind, _)| *kind == Kind::IngressClass);
        let mut said: BTreeMap<String, Vec<String>> =
            known.map(|(_, name)| (name.name.clone(), Vec::new())).collect();
        for (name, what) in self.classes.problems(&self.options.classes) {
            said.entry(name).or_default().push(what);
        }
        for (name, said) in said {
            self.tell(Kind::IngressClass, &ObjectName::new("", name), None, &said);
        }
    }

    /// Notes what is wrong with an object.
    fn tell(&mut self, kind: Kind, name: &ObjectName, uid: Option<&str>, said: &[String]) {
        let problem = |what: &String| Problem {
            uid: uid.map(str::to_owned),
            ..Problem::new(kind, name, what)
        };
        let problems: Vec<Problem> = said.iter().map(problem).collect();
        let key = (kind, name.clone());
        let before = if problems.is_empty() {
            self.problems.remove(&key)
        } else {
            self.problems.insert(key, problems.clone())
        };
        self.dirty.problems |= before.unwrap_or_default() != problems;
    }

    fn move_routes(&mut self, name: &ObjectName, before: &Read, now: &Read) {
        let (before, mut now) = (by_host(&before.routes), by_host(&now.routes));
        let all: BTreeSet<HostMatch> = before.keys().chain(now.keys()).cloned().collect();
        for host in all {
            let routes = now.remove(&host).unwrap_or_default();
            if before.get(&host) == Some(&routes) {
                continue;
            }
            let entry = self.hosts.entry(host.clone()).or_default();
            if routes.is_empty() {
                entry.routes.remove(name);
            } else {
                entry.routes.insert(name.clone(), routes);
            }
            entry.moved = true;
            self.dirty.hosts.insert(host);
        }
    }

    fn move_wishes(&mut self, before: &[Wish], now: &[Wish]) {
        if before == now {
            return;
        }
        for wish in before {
            let host = self.hosts.entry(wish.host.clone()).or_default();
            host.wishes.remove(wish);
            self.dirty.hosts.insert(wish.host.clone());
        }
        for wish in now {
            let host = self.hosts.entry(wish.host.clone()).or_default();
            host.wishes.insert(wish.clone());
            self.dirty.hosts.insert(wish.host.clone());
        }
    }

    fn move_doors(&mut self, before: &Read, now: &Read) {
        if before.passes != now.passes {
            for pass in &before.passes {
                let host = self.hosts.entry(pass.host.clone()).or_default();
                host.passes.remove(&pass.origin);
                self.dirty.hosts.insert(pass.host.clone());
            }
            for pass in &now.passes {
                let host = self.hosts.entry(pass.host.clone()).or_default();
                host.passes.insert(pass.origin.clone(), pass.clone());
                self.dirty.hosts.insert(pass.host.clone());
            }
        }
        if before.demands != now.demands {
            for demand in &before.demands {
                let host = self.hosts.entry(demand.host.clone()).or_default();
                host.demands.remove(demand);
                self.dirty.hosts.insert(demand.host.clone());
            }
            for demand in &now.demands {
                let host = self.hosts.entry(demand.host.clone()).or_default();
                host.demands.insert(demand.clone());
                self.dirty.hosts.insert(demand.host.clone());
            }
        }
    }

    fn move_services(
        &mut self,
        name: &ObjectName,
        before: &BTreeSet<ObjectName>,
        now: &BTreeSet<ObjectName>,
    ) {
        for service in before.difference(now) {
            if let Some(users) = self.users.get_mut(service) {
                users.remove(name);
                if users.is_empty() {
                    self.users.remove(service);
                }
            }
            self.dirty.services.insert(service.clone());
        }
        for service in now.difference(before) {
            self.users
                .entry(service.clone())
                .or_default()
                .insert(name.clone());
            self.dirty.services.insert(service.clone());
        }
    }

    fn move_backends(&mut self, before: &Read, now: &Read) {
        for (backend, asked) in before.leads_to() {
            if let Some(used) = self.backends.get_mut(backend) {
                used.routes = used.routes.saturating_sub(1);
                if let Some((origin, _)) = asked {
                    used.checks.remove(origin);
                }
                self.dirty.services.insert(backend.service.clone());
            }
        }
        for (backend, asked) in now.leads_to() {
            let used = self.backends.entry(backend.clone()).or_default();
            used.routes += 1;
            used.checks
                .extend(asked.map(|(origin, check)| (origin.clone(), check.clone())));
            self.dirty.services.insert(backend.service.clone());
        }
    }

    fn settle_hosts(&mut self, changed: &mut Changed) {
        let mut tables = Vec::new();
        let (mut conflicts_changed, mut certificates_changed) = (false, false);
        let (mut passes_changed, mut demands_changed) = (false, false);
        for host in mem::take(&mut self.dirty.hosts) {
            let Some(mut asked) = self.hosts.remove(&host) else {
                continue;
            };
            let ownership = self.options.ownership;
            let (routes, mut conflicts) = hosts::settle(&host, asked.routes.values().flatten(), ownership);
            let mut counts = asked.of_owner(&routes, ownership);
            let settled = doors::settle(&host, &counts.wishes, &counts.passes, &counts.demands);
            if settled.pass.is_some() {
                counts.wishes.clear();
            }
            conflicts.extend(settled.conflicts);
            conflicts.extend(hosts::settle_certificates(&host, &counts.wishes));
            if asked.moved {
                tables.push((host.clone(), routes));
            }
            certificates_changed |= self.certificates.set(&host, &counts.wishes);
            passes_changed |= doors::set(&mut self.passes, &host, settled.pass);
            demands_changed |= doors::set(&mut self.demands, &host, settled.demand);
            asked.moved = false;
            if !asked.is_empty() {
                self.hosts.insert(host.clone(), asked);
            }
            let before = if conflicts.is_empty() {
                self.conflicts.remove(&host)
            } else {
                self.conflicts.insert(host, conflicts.clone())
            };
            conflicts_changed |= before.unwrap_or_default() != conflicts;
        }
        if !tables.is_empty() {
            self.table = self.table.with_hosts_changed(tables);
            changed.table = Some(self.table.clone());
        }
        changed.certificates = certificates_changed.then(|| self.certificates.clone());
        changed.passes = passes_changed.then(|| self.passes.clone());
        changed.demands = demands_changed.then(|| self.demands.clone());
        changed.conflicts = conflicts_changed.then(|| self.conflicts());
    }

    /// Looks at the backends of a Service, and at what is wrong with its slices.
    fn look_at(&mut self, service: &ObjectName, changed: &mut Changed) {
        let first = Backend {
            service: service.clone(),
            port: Box::default(),
        };
        let slices = self.slices.get(service);
        let mut unused = Vec::new();
        let backends = self.backends.range_mut(first..);
        for (backend, used) in backends.take_while(|(backend, _)| backend.service == *service) {
            if used.routes == 0 {
                unused.push(backend.clone());
                continue;
            }
            let slices = slices.into_iter().flat_map(BTreeMap::values).collect::<Vec<_>>();
            let mut state = endpoints::backend(self.services.get(service), &slices, &backend.port);
            state.check = used.checks.values().next().cloned();
            if used.state.as_ref() != Some(&state) {
                used.state = Some(state.clone());
                changed.backends.push((backend.clone(), Some(state)));
            }
        }
        for backend in unused {
            self.backends.remove(&backend);
            changed.backends.push((backend, None));
        }
        let used = self.users.contains_key(service);
        let said = slices.into_iter().flatten().map(|(name, slice)| {
            let said = if used {
                slice.problems().to_vec()
            } else {
                Vec::new()
            };
            (ObjectName::new(service.namespace.clone(), name), said)
        });
        for (name, said) in said.collect::<Vec<_>>() {
            self.tell(Kind::EndpointSlice, &name, None, &said);
        }
    }
}

/// What was asked of a host, as far as it counts.
struct Counts {
    wishes: BTreeSet<Wish>,
    passes: BTreeMap<Origin, Pass>,
    demands: BTreeSet<Demand>,
}

impl Host {
    /// What counts: where a namespace has the host, only its own.
    fn of_owner(&self, routes: &[Arc<Route>], ownership: HostOwnership) -> Counts {
        let owner = routes.first().map(|route| &route.origin.object.namespace);
        let mut counts = Counts {
            wishes: self.wishes.clone(),
            passes: self.passes.clone(),
            demands: self.demands.clone(),
        };
        if let (HostOwnership::FirstNamespace, Some(owner)) = (ownership, owner) {
            let own = |origin: &Origin| origin.object.namespace == *owner;
            counts
                .wishes
                .retain(|wish| wish.host == HostMatch::Any || own(&wish.origin));
            counts.passes.retain(|origin, _| own(origin));
            counts.demands.retain(|demand| own(&demand.origin));
        }
        counts
    }

    pub(super) fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.wishes.is_empty() && self.passes.is_empty() && self.demands.is_empty()
    }
}

/// Where something leads, and what it wants of health checks there.
type Way<'a> = (&'a Backend, Option<(&'a Origin, &'a HealthCheck)>);

impl Read {
    /// Where it leads, once for each time that it does.
    fn leads_to(&self) -> impl Iterator<Item = Way<'_>> {
        let passed = self.passes.iter().filter_map(|pass| {
            let check = pass.policy.check.as_ref();
            Some((pass.backend.as_ref()?, check.map(|check| (&pass.origin, check))))
        });
        self.routes.iter().flat_map(ways).chain(passed)
    }
}

fn ways(route: &Arc<Route>) -> impl Iterator<Item = Way<'_>> {
    let backends = match &route.action {
        Action::Forward(backends) => backends.as_slice(),
        Action::Redirect(_) | Action::Refuse { .. } => &[],
    };
    let check = route.policy.check.as_ref().map(|check| (&route.origin, check));
    backends.iter().map(move |weighted| (&weighted.backend, check))
}

fn by_host(routes: &[Arc<Route>]) -> BTreeMap<HostMatch, Vec<Arc<Route>>> {
    let mut by_host: BTreeMap<HostMatch, Vec<Arc<Route>>> = BTreeMap::new();
    for route in routes {
        by_host
            .entry(route.host.clone())
            .or_default()
            .push(Arc::clone(route));
    }
    by_host
}
