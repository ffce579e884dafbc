//! The ranges that ClusterIPs are given out of (KEP-1880), and the ClusterIPs in them that are another proxy's.

use std::collections::BTreeMap;

use proxy_common::{Cidr, Ip, ServiceCidrs};

use crate::address::{self, Family};
use crate::api::{ApiService, ApiServiceCidr};
use crate::node_ports::Prefix;
use crate::object::{Kind, ObjectName};
use crate::problem::Problem;

/// What the ServiceCIDRs say.
#[derive(Debug, Default)]
pub struct Ranges {
    objects: BTreeMap<ObjectName, Range>,
}

/// One object.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Range {
    ranges: Vec<Prefix>,
    problems: Vec<String>,
}

impl Ranges {
    /// An object is new or different; says whether that is news.
    pub fn put(&mut self, name: &ObjectName, object: &ApiServiceCidr) -> bool {
        let mut range = Range::default();
        let words = object.spec.iter().filter_map(|spec| spec.cidrs.as_ref());
        for word in words.flatten() {
            match word.parse::<Prefix>() {
                Ok(prefix) if !prefix.is_everything() => range.ranges.push(prefix),
                _ => range.problems.push(format!(
                    "{word:?} is no range of ClusterIPs: nothing is dropped there; correct it"
                )),
            }
        }
        let before = self.objects.insert(name.clone(), range);
        before.as_ref() != self.objects.get(name)
    }

    /// An object is gone; says whether that is news.
    pub fn delete(&mut self, name: &ObjectName) -> bool {
        self.objects.remove(name).is_some()
    }

    /// The row.
    pub fn row(&self) -> ServiceCidrs {
        let mut row = ServiceCidrs::default();
        for (family, places) in [(Family::V4, &mut row.v4), (Family::V6, &mut row.v6)] {
            for (place, (_, prefix)) in places.iter_mut().zip(self.of(family)) {
                *place = Cidr {
                    first: prefix.first(),
                    mask: prefix.mask(),
                };
            }
        }
        row
    }

    /// Ranges of a family, each once, in the order of the names of their objects.
    fn of(&self, family: Family) -> Vec<(&ObjectName, Prefix)> {
        let all = self.objects.iter();
        let all = all.flat_map(|(name, range)| range.ranges.iter().map(move |prefix| (name, *prefix)));
        let mut seen: Vec<(&ObjectName, Prefix)> = Vec::new();
        for (name, prefix) in all.filter(|(_, prefix)| prefix.family() == family) {
            if !seen.iter().any(|(_, other)| *other == prefix) {
                seen.push((name, prefix));
            }
        }
        seen
    }

    /// What is wrong with the objects.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (name, range) in &self.objects {
            let said = range.problems.iter();
            problems.extend(said.map(|what| Problem::new(Kind::ServiceCidr, name, what)));
        }
        for family in [Family::V4, Family::V6] {
            for (name, prefix) in self.of(family).into_iter().skip(ServiceCidrs::MOST) {
                let what = format!(
                    "{prefix} is one range of {family} too many for weir, which knows {} of a family: nothing is dropped \
                     there",
                    ServiceCidrs::MOST
                );
                problems.push(Problem::new(Kind::ServiceCidr, name, what));
            }
        }
        problems
    }
}

/// ClusterIPs of Services that another proxy serves: they are allocated, and none of weir's business.
#[derive(Debug, Default)]
pub struct Elsewhere {
    services: BTreeMap<ObjectName, Vec<Ip>>,
    addresses: BTreeMap<Ip, usize>,
}

impl Elsewhere {
    /// Whether another proxy's Service has the address.
    pub fn has(&self, address: Ip) -> bool {
        self.addresses.contains_key(&address)
    }

    /// Replaces the addresses of a Service, none for one that is weir's or gone; returns those that may be different.
    pub fn set(&mut self, name: &ObjectName, object: Option<&ApiService>) -> Vec<Ip> {
        let spec = object.and_then(|object| object.spec.as_ref());
        let several = spec.iter().flat_map(|spec| spec.cluster_ips.iter().flatten());
        let words = spec
            .iter()
            .filter_map(|spec| spec.cluster_ip.as_ref())
            .chain(several);
        let mut now: Vec<Ip> = words.filter_map(|word| address::parse(word)).collect();
        now.sort();
        now.dedup();
        let before = self.services.remove(name).unwrap_or_default();
        if before == now {
            if !now.is_empty() {
                self.services.insert(name.clone(), now);
            }
            return Vec::new();
        }
        for address in &before {
            if let Some(count) = self.addresses.get_mut(address) {
                *count -= 1;
                if *count == 0 {
                    self.addresses.remove(address);
                }
            }
        }
        for address in &now {
            *self.addresses.entry(*address).or_insert(0) += 1;
        }
        let touched = before.into_iter().chain(now.iter().copied()).collect();
        if !now.is_empty() {
            self.services.insert(name.clone(), now);
        }
        touched
    }
}
