//! Which connections are passed through unopened, by the name that their clients ask for.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::doors::Passes;
use crate::model::tls::Certificates;
use crate::route::{Backend, HostMatch, Policy};

/// Where connections for a name go.
#[derive(Clone, PartialEq, Debug)]
pub struct Target {
    /// The backend; none: they are closed.
    pub backend: Option<Backend>,
    /// Their limits, and how an endpoint is chosen.
    pub policy: Arc<Policy>,
}

/// All names that are passed through.
#[derive(Clone, Debug, Default)]
pub struct Passthrough {
    /// None: that name is terminated, though its wildcard is not.
    exact: HashMap<Box<str>, Option<Arc<Target>>>,
    /// By what follows `*.`; the star is one label.
    wildcard: HashMap<Box<str>, Arc<Target>>,
}

impl Passthrough {
    /// From the model. The certificates matter where a name has one and its wildcard is passed through.
    pub fn new(passes: &Passes, certificates: &Certificates) -> Self {
        let mut table = Self::default();
        for pass in passes.values() {
            let target = Target {
                backend: pass.backend.clone(),
                policy: Arc::clone(&pass.policy),
            };
            table.add(&pass.host, target);
        }
        if !table.wildcard.is_empty() {
            for choice in certificates.choices() {
                if let HostMatch::Exact(name) = &choice.host {
                    table.except(name);
                }
            }
        }
        table
    }

    /// Passes connections for these names through; no table has all names.
    pub fn add(&mut self, host: &HostMatch, target: Target) {
        let target = Arc::new(target);
        match host {
            HostMatch::Exact(name) => drop(self.exact.insert(name.clone(), Some(target))),
            HostMatch::Wildcard { suffix, .. } => drop(self.wildcard.insert(suffix.clone(), target)),
            HostMatch::Any => {}
        }
    }

    /// This name has a certificate, and is terminated unless it is passed through by itself.
    pub fn except(&mut self, name: &str) {
        if self.of_wildcard(name).is_some() {
            self.exact.entry(name.into()).or_insert(None);
        }
    }

    /// Where a connection for this name goes; none if it is terminated.
    pub fn find(&self, name: &str) -> Option<&Arc<Target>> {
        match self.exact.get(name) {
            Some(known) => known.as_ref(),
            None => self.of_wildcard(name),
        }
    }

    fn of_wildcard(&self, name: &str) -> Option<&Arc<Target>> {
        self.wildcard.get(name.split_once('.')?.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{WildcardDepth, host};

    #[test]
    fn exact_goes_before_wildcard_whichever_of_both_is_passed_through() {
        let mut table = Passthrough::default();
        for name in ["a.example", "*.example", "*.b.example"] {
            let backend = Backend {
                service: proxy_model::ObjectName::new("shop", name),
                port: "".into(),
            };
            let target = Target {
                backend: Some(backend),
                policy: Arc::default(),
            };
            table.add(&host::of_rule(name, WildcardDepth::One).unwrap(), target);
        }
        for name in ["a.example", "c.example", "elsewhere.test"] {
            table.except(name);
        }
        for (name, expected) in [
            ("a.example", Some("a.example")),
            ("b.example", Some("*.example")),
            ("c.example", None),
            ("x.b.example", Some("*.b.example")),
            ("y.x.b.example", None),
            ("example", None),
            ("elsewhere.test", None),
        ] {
            let found = table.find(name).and_then(|target| target.backend.as_ref());
            let found = found.map(|backend| backend.service.name.as_str());
            assert_eq!(found, expected, "{name}");
        }
    }
}
