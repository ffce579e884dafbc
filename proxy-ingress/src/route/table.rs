//! All routes, and the one that a request takes.
//!
//! A request asks hosts from the most specific to the least: its own name, wildcards from the longest to the shortest (of
//! one length that for one label first), and the rules without a host, which are for all inbound traffic. A host whose paths
//! or predicates do not fit lets the next one be asked. When none is left, default backends are asked in the same order.
//!
//! A table never changes. One with other routes for some hosts shares all else with it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::explain::Explanation;
use super::shards::{Named, Shards};
use super::trie::{self, Trie};
use super::{HostMatch, PathMatch, Predicate, Route, WildcardDepth, predicate};

/// What of a request decides where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its host in canonical form ([`super::host::of_request`]); none if it has none.
    pub host: Option<&'a str>,
    /// Its path in canonical form ([`super::path::canonical`]).
    pub path: &'a str,
    /// Its method.
    pub method: &'a http::Method,
    /// Its headers.
    pub headers: &'a http::HeaderMap,
    /// Its query, without the question mark.
    pub query: Option<&'a str>,
}

/// The answer.
#[derive(Clone, Copy, Debug)]
pub enum Found<'t> {
    /// A route whose path fits.
    Route(&'t Arc<Route>),
    /// None, but a default backend.
    Default(&'t Arc<Route>),
    /// Nothing: 404.
    Nothing,
}

impl<'t> Found<'t> {
    /// The route or the default backend.
    pub fn route(self) -> Option<&'t Arc<Route>> {
        match self {
            Self::Route(route) | Self::Default(route) => Some(route),
            Self::Nothing => None,
        }
    }
}

/// All routes. A copy is cheap.
#[derive(Clone, Debug, Default)]
pub struct Table {
    exact: Shards<Arc<HostTable>>,
    one_label: Shards<Arc<HostTable>>,
    many_labels: Shards<Arc<HostTable>>,
    any: Option<Arc<HostTable>>,
}

/// The routes of one host.
#[derive(Debug)]
pub struct HostTable {
    host: HostMatch,
    paths: Trie,
    /// Default backends, in the order in which they are asked.
    rest: Box<[Arc<Route>]>,
}

impl Named for Arc<HostTable> {
    fn name(&self) -> &str {
        match &self.host {
            HostMatch::Exact(name) | HostMatch::Wildcard { suffix: name, .. } => name,
            HostMatch::Any => "",
        }
    }
}

impl HostTable {
    fn build(host: HostMatch, routes: &[Arc<Route>]) -> Self {
        let rest = routes.iter().filter(|route| route.path == PathMatch::Rest);
        let mut rest: Box<[_]> = rest.cloned().collect();
        rest.sort_by(|a, b| trie::order(a).cmp(&trie::order(b)));
        Self {
            host,
            paths: Trie::build(routes),
            rest,
        }
    }

    /// Which host.
    pub fn host(&self) -> &HostMatch {
        &self.host
    }

    /// Its routes, default backends last; those of one path in the order in which they are asked.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.paths.routes().iter().chain(&self.rest)
    }
}

/// Sees the candidates for a request in the order in which they are asked. With the one that looks for the first that fits,
/// a walk is a look-up; with one that writes down what it sees, an explanation.
pub(super) trait Visitor<'t> {
    /// A host that is asked, for its paths or for its default backends.
    fn host(&mut self, _host: &'t HostTable, _rest: bool) {}

    /// A route whose host and path fit, and the first predicate that does not.
    fn candidate(&mut self, route: &'t Arc<Route>, missing: Option<&'t Predicate>) -> ControlFlow<()>;
}

/// Takes the first that fits.
struct First<'t>(Option<&'t Arc<Route>>);

impl<'t> Visitor<'t> for First<'t> {
    fn candidate(&mut self, route: &'t Arc<Route>, missing: Option<&'t Predicate>) -> ControlFlow<()> {
        if missing.is_some() {
            return ControlFlow::Continue(());
        }
        self.0 = Some(route);
        ControlFlow::Break(())
    }
}

impl Table {
    /// Of all routes.
    pub fn build(routes: Vec<Route>) -> Self {
        let mut hosts: BTreeMap<HostMatch, Vec<Arc<Route>>> = BTreeMap::new();
        for route in routes {
            hosts.entry(route.host.clone()).or_default().push(Arc::new(route));
        }
        Self::default().with_hosts_changed(hosts)
    }

    /// The same with other routes for some hosts; all routes of such a host, and none to remove it.
    #[must_use]
    pub fn with_hosts_changed(
        &self,
        changed: impl IntoIterator<Item = (HostMatch, Vec<Arc<Route>>)>,
    ) -> Self {
        let mut table = self.clone();
        for (host, routes) in changed {
            let built = (!routes.is_empty()).then(|| Arc::new(HostTable::build(host.clone(), &routes)));
            let (shards, name) = match &host {
                HostMatch::Exact(name) => (&mut table.exact, name),
                HostMatch::Wildcard {
                    suffix,
                    depth: WildcardDepth::One,
                } => (&mut table.one_label, suffix),
                HostMatch::Wildcard {
                    suffix,
                    depth: WildcardDepth::Many,
                } => (&mut table.many_labels, suffix),
                HostMatch::Any => {
                    table.any = built;
                    continue;
                }
            };
            match built {
                Some(built) => shards.insert(built),
                None => shards.remove(name),
            }
        }
        table
    }

    /// Where a request goes. Allocates nothing but for an expression on an escaped query parameter.
    pub fn find<'t>(&'t self, asked: &Asked<'_>) -> Found<'t> {
        let mut first = First(None);
        let _ = self.walk(asked, &mut first);
        match first.0 {
            Some(route) if route.path == PathMatch::Rest => Found::Default(route),
            Some(route) => Found::Route(route),
            None => Found::Nothing,
        }
    }

    /// The same look-up, with every route that was or would have been asked, and why it is or is not taken.
    pub fn explain(&self, asked: &Asked<'_>) -> Explanation {
        Explanation::of(self, asked)
    }

    /// The routes of one host.
    pub fn host(&self, host: &HostMatch) -> Option<&HostTable> {
        let found = match host {
            HostMatch::Exact(name) => self.exact.get(name),
            HostMatch::Wildcard {
                suffix,
                depth: WildcardDepth::One,
            } => self.one_label.get(suffix),
            HostMatch::Wildcard {
                suffix,
                depth: WildcardDepth::Many,
            } => self.many_labels.get(suffix),
            HostMatch::Any => self.any.as_ref(),
        };
        found.map(Arc::as_ref)
    }

    /// All hosts, in no order that means anything.
    pub fn hosts(&self) -> impl Iterator<Item = &HostTable> {
        let named = [&self.exact, &self.one_label, &self.many_labels];
        let named = named.into_iter().flat_map(Shards::iter);
        named.chain(&self.any).map(Arc::as_ref)
    }

    pub(super) fn walk<'t>(&'t self, asked: &Asked<'_>, visitor: &mut impl Visitor<'t>) -> ControlFlow<()> {
        self.walk_hosts(asked.host, &mut |host| {
            if host.paths.is_empty() {
                return ControlFlow::Continue(());
            }
            visitor.host(host, false);
            host.paths.walk(asked.path, &mut |route| {
                visitor.candidate(route, predicate::missing(&route.predicates, asked))
            })
        })?;
        self.walk_hosts(asked.host, &mut |host| {
            if host.rest.is_empty() {
                return ControlFlow::Continue(());
            }
            visitor.host(host, true);
            let mut rest = host.rest.iter();
            rest.try_for_each(|route| visitor.candidate(route, predicate::missing(&route.predicates, asked)))
        })
    }

    /// The hosts that a name is, from the most specific to the least.
    fn walk_hosts<'t>(
        &'t self,
        name: Option<&str>,
        visit: &mut impl FnMut(&'t HostTable) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if let Some(name) = name {
            if let Some(host) = self.exact.get(name) {
                visit(host)?;
            }
            // Behind the first dot is all that a wildcard of one label can end in.
            let suffix = name.split_once('.').map(|(_, suffix)| suffix);
            if let Some(host) = suffix.and_then(|suffix| self.one_label.get(suffix)) {
                visit(host)?;
            }
            let mut suffix = suffix.filter(|_| !self.many_labels.is_empty());
            while let Some(rest) = suffix {
                if let Some(host) = self.many_labels.get(rest) {
                    visit(host)?;
                }
                suffix = rest.split_once('.').map(|(_, rest)| rest);
            }
        }
        match &self.any {
            Some(host) => visit(host),
            None => ControlFlow::Continue(()),
        }
    }
}
