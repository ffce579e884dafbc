//! Which Ingress's status is to be written next: pure.
//!
//! ```text
//!  ours, and says something else ──────────────────▶ our addresses
//!  ours until now, and says exactly our addresses ─▶ nothing
//!  another's, or says anything else ───────────────▶ left alone
//! ```

use std::collections::{BTreeMap, BTreeSet};

use proxy_model::{Change, IpOrHost, Kind, Object, ObjectName};

use crate::Statuses;

/// What is known of all Ingresses.
#[derive(Default)]
pub(super) struct Desk {
    /// What each says, sorted.
    seen: BTreeMap<ObjectName, Vec<IpOrHost>>,
    /// Sorted.
    addresses: Vec<IpOrHost>,
    ours: BTreeSet<ObjectName>,
    /// Those that were ours, in the life of this process.
    left: BTreeSet<ObjectName>,
    /// Those that have to be looked at.
    dirty: BTreeSet<ObjectName>,
}

/// A status to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Write {
    pub(super) name: ObjectName,
    /// None: the list is to go.
    pub(super) addresses: Vec<IpOrHost>,
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It says this now.
    Says(Vec<IpOrHost>),
    /// It is gone.
    Gone,
    /// It will never be taken.
    Refused,
}

impl Desk {
    /// The source has news.
    pub(super) fn hear(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(object) => self.put(object),
                Change::Delete(Kind::Ingress, name) => self.gone(name),
                Change::Replace(Kind::Ingress, list) => {
                    let there: BTreeSet<ObjectName> = list.iter().map(Object::name).collect();
                    let gone = self.seen.keys().filter(|name| !there.contains(name));
                    for name in gone.cloned().collect::<Vec<_>>() {
                        self.gone(&name);
                    }
                    for object in list {
                        self.put(object);
                    }
                }
                _ => {}
            }
        }
    }

    fn put(&mut self, object: &Object) {
        let Object::Ingress(ingress) = object else {
            return;
        };
        let status = ingress.status.as_ref();
        let balancer = status.and_then(|status| status.load_balancer.as_ref());
        let list = balancer.and_then(|balancer| balancer.ingress.as_deref());
        self.says(object.name(), IpOrHost::list(list.unwrap_or_default()));
    }

    fn says(&mut self, name: ObjectName, list: Vec<IpOrHost>) {
        let list = sorted(list);
        if self.seen.get(&name) != Some(&list) {
            self.dirty.insert(name.clone());
            self.seen.insert(name, list);
        }
    }

    fn gone(&mut self, name: &ObjectName) {
        self.seen.remove(name);
        self.left.remove(name);
    }

    /// The ingress has news.
    pub(super) fn want(&mut self, statuses: &Statuses) {
        let addresses = sorted(statuses.addresses.clone());
        if addresses != self.addresses {
            self.addresses = addresses;
            self.dirty.extend(statuses.ingresses.iter().cloned());
        }
        let left = self.ours.difference(&statuses.ingresses).cloned();
        let left: Vec<ObjectName> = left.filter(|name| self.seen.contains_key(name)).collect();
        let new = statuses.ingresses.difference(&self.ours);
        self.dirty.extend(left.iter().chain(new).cloned());
        self.left.extend(left);
        self.left.retain(|name| !statuses.ingresses.contains(name));
        self.ours.clone_from(&statuses.ingresses);
    }

    /// What to write now.
    pub(super) fn next(&mut self) -> Option<Write> {
        while let Some(name) = self.dirty.first().cloned() {
            if let Some(addresses) = self.correction(&name) {
                return Some(Write { name, addresses });
            }
            self.dirty.remove(&name);
        }
        None
    }

    fn correction(&self, name: &ObjectName) -> Option<Vec<IpOrHost>> {
        let says = self.seen.get(name)?;
        if self.addresses.is_empty() {
            return None;
        }
        if self.ours.contains(name) {
            return (*says != self.addresses).then(|| self.addresses.clone());
        }
        (self.left.contains(name) && *says == self.addresses).then(Vec::new)
    }

    /// It was tried.
    pub(super) fn written(&mut self, name: &ObjectName, outcome: Outcome) {
        self.dirty.remove(name);
        match outcome {
            Outcome::Says(list) => {
                if self.seen.contains_key(name) {
                    self.says(name.clone(), list);
                }
            }
            Outcome::Gone => self.gone(name),
            Outcome::Refused => {}
        }
    }
}

fn sorted(mut list: Vec<IpOrHost>) -> Vec<IpOrHost> {
    list.sort();
    list.dedup();
    list
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name(name: &str) -> ObjectName {
        ObjectName::new("shop", name)
    }

    fn list(texts: &[&str]) -> Vec<IpOrHost> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ingress(name: &str, ips: &[&str]) -> Change {
        let list: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                            "metadata": {"namespace": "shop", "name": name},
                            "status": {"loadBalancer": {"ingress": list}}});
        Change::Put(Object::read(object, &Kind::INGRESS).unwrap().unwrap())
    }

    fn statuses(addresses: &[&str], ours: &[&str]) -> Statuses {
        Statuses {
            addresses: list(addresses),
            ingresses: ours.iter().map(|text| name(text)).collect(),
        }
    }

    /// Writes all there is to write.
    fn writes(desk: &mut Desk) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(write) = desk.next() {
            let texts: Vec<String> = write.addresses.iter().map(ToString::to_string).collect();
            all.push(format!("{}: {}", write.name.name, texts.join(" ")));
            desk.written(&write.name, Outcome::Says(write.addresses));
            assert!(all.len() < 100);
        }
        all
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn what_differs_is_written_once() {
        let mut desk = Desk::default();
        desk.hear(&[
            ingress("a", &[]),
            ingress("b", &["192.0.2.2", "192.0.2.1"]),
            ingress("c", &["192.0.2.9"]),
        ]);
        assert_eq!(writes(&mut desk), NONE);
        desk.want(&statuses(&["192.0.2.1", "192.0.2.2"], &["a", "b", "missing"]));
        assert_eq!(writes(&mut desk), ["a: 192.0.2.1 192.0.2.2"]);
        // Somebody else writes into it.
        desk.hear(&[ingress("a", &["192.0.2.7"])]);
        assert_eq!(writes(&mut desk), ["a: 192.0.2.1 192.0.2.2"]);
        desk.hear(&[ingress("missing", &[])]);
        assert_eq!(writes(&mut desk), ["missing: 192.0.2.1 192.0.2.2"]);
        desk.want(&statuses(&["192.0.2.3"], &["a", "b"]));
        assert_eq!(writes(&mut desk), ["a: 192.0.2.3", "b: 192.0.2.3"]);
    }

    #[test]
    fn of_those_that_left_only_ours_is_taken_away() {
        let mut desk = Desk::default();
        let all = ["a", "b", "c"];
        desk.hear(&all.map(|name| ingress(name, &["192.0.2.1"])));
        // Never ours, though it says the same.
        desk.hear(&[ingress("other", &["192.0.2.1"])]);
        desk.want(&statuses(&["192.0.2.1"], &all));
        assert_eq!(writes(&mut desk), NONE);
        desk.hear(&[ingress("b", &["192.0.2.1", "192.0.2.8"])]);
        desk.want(&statuses(&["192.0.2.1"], &["c"]));
        assert_eq!(writes(&mut desk), ["a: "]);
        // It comes back.
        desk.want(&statuses(&["192.0.2.1"], &["a", "c"]));
        assert_eq!(writes(&mut desk), ["a: 192.0.2.1"]);
    }

    #[test]
    fn without_an_address_nothing_is_written() {
        let mut desk = Desk::default();
        desk.hear(&[ingress("a", &["192.0.2.1"])]);
        desk.want(&statuses(&[], &["a"]));
        desk.want(&statuses(&[], &[]));
        assert_eq!(writes(&mut desk), NONE);
        desk.want(&statuses(&["192.0.2.1"], &["a"]));
        desk.want(&statuses(&[], &["a"]));
        assert_eq!(writes(&mut desk), NONE);
    }

    #[test]
    fn what_is_gone_or_refused_is_let_go() {
        let mut desk = Desk::default();
        desk.hear(&[ingress("a", &[]), ingress("b", &[])]);
        desk.want(&statuses(&["192.0.2.1"], &["a", "b"]));
        assert_eq!(desk.next().unwrap().name, name("a"));
        desk.written(&name("a"), Outcome::Gone);
        assert_eq!(desk.next().unwrap().name, name("b"));
        desk.written(&name("b"), Outcome::Refused);
        assert_eq!(desk.next(), None);
        // A new list may have it again, and lacks another.
        desk.hear(&[Change::Replace(Kind::Ingress, vec![])]);
        desk.want(&statuses(&["192.0.2.2"], &["a", "b"]));
        assert_eq!(desk.next(), None);
        desk.hear(&[ingress("a", &[])]);
        assert_eq!(desk.next().unwrap().name, name("a"));
    }
}
