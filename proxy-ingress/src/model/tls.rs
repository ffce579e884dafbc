//! Which certificate is served for which name: names of Secrets only. What is in them is the engine's business.
//!
//! The name that a client asks for by SNI is looked for as it is, then by its wildcard, then among those that are for all
//! names; what is not found has the default certificate. Of several Ingresses the oldest has a name.

use std::collections::BTreeSet;
use std::sync::Arc;

use proxy_model::api::IngressTls;
use proxy_model::{Kind, ObjectName};

use crate::route::host;
use crate::route::shards::{Named, Shards};
use crate::route::{HostMatch, Origin, WildcardDepth};

/// What an Ingress asks for one name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Wish {
    /// Where it stands; decides among equals.
    pub origin: Origin,
    /// The name.
    pub host: HostMatch,
    /// The Secret; none means the default certificate.
    pub secret: Option<ObjectName>,
}

/// Reads `spec.tls`. An element without hosts is for all names.
pub fn read(tls: &[IngressTls], origin: &Origin, problems: &mut Vec<String>) -> Vec<Wish> {
    let mut wishes = Vec::new();
    for (rule, element) in (0..).zip(tls) {
        let secret = element.secret_name.as_deref().filter(|name| !name.is_empty());
        let secret = secret.map(|name| ObjectName::new(origin.object.namespace.clone(), name));
        let (secret, bad) = match secret {
            Some(secret) if !secret.is_dns(Kind::Secret) => (None, Some(secret.name)),
            secret => (secret, None),
        };
        problems.extend(bad.map(|name| {
            format!("spec.tls[{rule}].secretName {name:?} is no name: the default certificate is served; correct it")
        }));
        let hosts = element.hosts.as_deref().unwrap_or_default();
        let all = [String::new()];
        let hosts = if hosts.is_empty() { &all } else { hosts };
        for (entry, text) in (0..).zip(hosts) {
            if text.is_empty() && element.hosts.as_ref().is_some_and(|hosts| !hosts.is_empty()) {
                problems.push(format!(
                    "spec.tls[{rule}] has an empty host: no certificate for it; correct it"
                ));
                continue;
            }
            match host::of_rule(text, WildcardDepth::One) {
                Ok(host) => wishes.push(Wish {
                    origin: Origin {
                        rule,
                        entry,
                        ..origin.clone()
                    },
                    host,
                    secret: secret.clone(),
                }),
                Err(why) => problems.push(format!("spec.tls[{rule}]: {why}; no certificate for it")),
            }
        }
    }
    wishes
}

/// Whether TLS is declared for a host of a rule.
pub fn covers(wishes: &[Wish], host: &HostMatch) -> bool {
    wishes.iter().any(|wish| match (&wish.host, host) {
        (HostMatch::Any, _) => true,
        (HostMatch::Wildcard { suffix, .. }, HostMatch::Exact(name)) => {
            name.split_once('.').is_some_and(|(_, rest)| *rest == **suffix)
        }
        (wanted, host) => wanted == host,
    })
}

/// What is served for one name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The name.
    pub host: HostMatch,
    /// The Secret; none means the default certificate.
    pub secret: Option<ObjectName>,
    /// The Ingress that has the name.
    pub origin: Origin,
}

impl Named for Arc<Choice> {
    fn name(&self) -> &str {
        match &self.host {
            HostMatch::Exact(name) | HostMatch::Wildcard { suffix: name, .. } => name,
            HostMatch::Any => "",
        }
    }
}

/// Which certificate is served for which name. A copy is cheap.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    exact: Shards<Arc<Choice>>,
    wildcard: Shards<Arc<Choice>>,
    any: Option<Arc<Choice>>,
}

impl Certificates {
    /// What is served for a name in canonical form, or for a client that names none; `None`: the default certificate.
    pub fn find(&self, name: Option<&str>) -> Option<&Choice> {
        let exact = name.and_then(|name| self.exact.get(name));
        let suffix = || name.and_then(|name| Some(name.split_once('.')?.1));
        let wildcard = || suffix().and_then(|suffix| self.wildcard.get(suffix));
        exact.or_else(wildcard).or(self.any.as_ref()).map(Arc::as_ref)
    }

    /// All choices, in no order that means anything.
    pub fn choices(&self) -> impl Iterator<Item = &Choice> {
        self.exact
            .iter()
            .chain(self.wildcard.iter())
            .chain(&self.any)
            .map(Arc::as_ref)
    }

    /// The Secrets that are needed.
    pub fn secrets(&self) -> BTreeSet<&ObjectName> {
        self.choices()
            .filter_map(|choice| choice.secret.as_ref())
            .collect()
    }

    /// Other wishes for one name: the oldest gets it. Says whether that is news.
    pub(super) fn set(&mut self, host: &HostMatch, wishes: &BTreeSet<Wish>) -> bool {
        let before = self.of(host).cloned();
        let choice = wishes.first().map(|wish| {
            Arc::new(Choice {
                host: host.clone(),
                secret: wish.secret.clone(),
                origin: wish.origin.clone(),
            })
        });
        if before == choice {
            return false;
        }
        let (shards, name) = match host {
            HostMatch::Exact(name) => (&mut self.exact, name),
            HostMatch::Wildcard { suffix, .. } => (&mut self.wildcard, suffix),
            HostMatch::Any => {
                self.any = choice;
                return true;
            }
        };
        match choice {
            Some(choice) => shards.insert(choice),
            None => shards.remove(name),
        }
        true
    }

    fn of(&self, host: &HostMatch) -> Option<&Arc<Choice>> {
        match host {
            HostMatch::Exact(name) => self.exact.get(name),
            HostMatch::Wildcard { suffix, .. } => self.wildcard.get(suffix),
            HostMatch::Any => self.any.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    fn wishes(created: i64, name: &str, tls: Value) -> (Vec<Wish>, Vec<String>) {
        let tls: Vec<IngressTls> = serde_json::from_value(tls).unwrap();
        let origin = Origin {
            created,
            object: ObjectName::new("shop", name),
            rule: 0,
            entry: 0,
        };
        let mut problems = Vec::new();
        (read(&tls, &origin, &mut problems), problems)
    }

    fn plan(list: &[(i64, &str, Value)]) -> Certificates {
        let mut by_host: BTreeMap<HostMatch, BTreeSet<Wish>> = BTreeMap::new();
        for (created, name, tls) in list {
            let (wishes, problems) = wishes(*created, name, tls.clone());
            assert_eq!(problems, Vec::<String>::new());
            for wish in wishes {
                by_host.entry(wish.host.clone()).or_default().insert(wish);
            }
        }
        let mut certificates = Certificates::default();
        for (host, wishes) in &by_host {
            certificates.set(host, wishes);
        }
        certificates
    }

    fn secret<'a>(plan: &'a Certificates, name: Option<&str>) -> &'a str {
        match plan.find(name) {
            None => "(nothing)",
            Some(choice) => choice.secret.as_ref().map_or("(default)", |secret| &secret.name),
        }
    }

    #[test]
    fn exact_goes_before_wildcard_and_that_before_all() {
        let plan = plan(&[
            (1, "all", json!([{"secretName": "all"}])),
            (
                2,
                "a",
                json!([
                    {"hosts": ["a.shop.example", "b.shop.example"], "secretName": "exact"},
                    {"hosts": ["*.shop.example"], "secretName": "wild"},
                    {"hosts": ["c.shop.example"]},
                ]),
            ),
        ]);
        for (name, expected) in [
            ("a.shop.example", "exact"),
            ("b.shop.example", "exact"),
            ("x.shop.example", "wild"),
            ("x.a.shop.example", "all"),
            ("shop.example", "all"),
            ("c.shop.example", "(default)"),
        ] {
            assert_eq!(secret(&plan, Some(name)), expected, "{name}");
        }
        assert_eq!(secret(&plan, None), "all");
        let names: Vec<&str> = plan
            .secrets()
            .into_iter()
            .map(|secret| secret.name.as_str())
            .collect();
        assert_eq!(names, ["all", "exact", "wild"]);
    }

    #[test]
    fn of_several_ingresses_the_oldest_has_the_name() {
        let tls = |secret: &str| json!([{"hosts": ["a.example"], "secretName": secret}]);
        let list = [
            (3, "c", tls("younger")),
            (2, "b", tls("same-age-later-name")),
            (2, "a", tls("oldest")),
        ];
        assert_eq!(secret(&plan(&list), Some("a.example")), "oldest");
        assert_eq!(secret(&plan(&[]), Some("a.example")), "(nothing)");
    }

    #[test]
    fn a_secret_that_is_no_name_is_told() {
        let (wishes, problems) = wishes(
            1,
            "a",
            json!([{"hosts": ["a.example"], "secretName": "a\u{1b}b"}]),
        );
        assert_eq!(wishes[0].secret, None);
        assert!(
            problems[0].contains("secretName \"a\\u{1b}b\" is no name"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_bad_host_costs_itself() {
        let (wishes, problems) = wishes(
            1,
            "a",
            json!([{"hosts": ["10.0.0.1", "", "a.example"], "secretName": "s"}]),
        );
        assert_eq!(wishes.len(), 1);
        assert_eq!(problems.len(), 2);
        assert!(
            problems[0].contains("spec.tls[0]: host \"10.0.0.1\" is an address"),
            "{problems:?}"
        );
    }

    #[test]
    fn tls_is_declared_for_the_hosts_that_it_names() {
        let host = |text: &str| host::of_rule(text, WildcardDepth::One).unwrap();
        let (some, _) = wishes(1, "a", json!([{"hosts": ["a.example", "*.b.example"]}]));
        for (text, expected) in [
            ("a.example", true),
            ("x.b.example", true),
            ("*.b.example", true),
            ("y.x.b.example", false),
            ("b.example", false),
            ("*.a.example", false),
            ("", false),
        ] {
            assert_eq!(covers(&some, &host(text)), expected, "{text}");
        }
        let (all, _) = wishes(1, "a", json!([{"secretName": "s"}]));
        assert!(covers(&all, &host("")) && covers(&all, &host("a.example")));
        assert!(!covers(&[], &host("a.example")));
    }
}
