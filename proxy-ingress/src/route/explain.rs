//! Why a request goes where it goes: the walk of a look-up, written down.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::predicate::rank;
use super::table::{Asked, HostTable, Table, Visitor};
use super::{HostMatch, ObjectName, Origin, PathMatch, Predicate, Route, WildcardDepth};

/// A look-up with all that was asked.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Explanation {
    /// Hosts in the order asked; those without a route for the path too.
    pub hosts: Vec<HostAsked>,
    /// Routes whose host and path fit, in the order asked.
    pub candidates: Vec<Candidate>,
}

/// A host that was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostAsked {
    /// Which.
    pub host: HostMatch,
    /// For its default backends, not for its paths.
    pub rest: bool,
    /// How many of its routes fit by path.
    pub candidates: usize,
}

/// A route whose host and path fit.
#[derive(Clone, PartialEq, Debug)]
pub struct Candidate {
    /// The route.
    pub route: Arc<Route>,
    /// Why it does not get the request; none if it does.
    pub lost: Option<Lost>,
}

/// Why a route does not get a request that its host and path are for.
#[derive(Clone, PartialEq, Debug)]
pub enum Lost {
    /// The request is not like this.
    Predicate(Predicate),
    /// It is a default backend, and there is a rule.
    OnlyDefault,
    /// The winner's host says more.
    Host(HostMatch),
    /// The winner's path is longer.
    Path(PathMatch),
    /// The winner's path is the same, and exact.
    NotExact,
    /// The winner asks for more: method, headers, query.
    Predicates,
    /// The winner's object is older.
    Younger(ObjectName),
    /// Both are of one age, and the winner's namespace and name come first.
    Name(ObjectName),
    /// It stands behind the winner in the same object.
    Behind,
}

impl Explanation {
    pub(super) fn of(table: &Table, asked: &Asked<'_>) -> Self {
        let mut explanation = Self::default();
        let _ = table.walk(asked, &mut explanation);
        explanation
    }

    /// The route that gets the request.
    pub fn winner(&self) -> Option<&Arc<Route>> {
        let mut won = self
            .candidates
            .iter()
            .filter(|candidate| candidate.lost.is_none());
        won.next().map(|candidate| &candidate.route)
    }
}

impl<'t> Visitor<'t> for Explanation {
    fn host(&mut self, host: &'t HostTable, rest: bool) {
        self.hosts.push(HostAsked {
            host: host.host().clone(),
            rest,
            candidates: 0,
        });
    }

    fn candidate(&mut self, route: &'t Arc<Route>, missing: Option<&'t Predicate>) -> ControlFlow<()> {
        if let Some(host) = self.hosts.last_mut() {
            host.candidates += 1;
        }
        let lost = match (missing, self.winner()) {
            (Some(predicate), _) => Some(Lost::Predicate(predicate.clone())),
            (None, Some(winner)) => Some(Lost::to(winner, route)),
            (None, None) => None,
        };
        self.candidates.push(Candidate {
            route: Arc::clone(route),
            lost,
        });
        ControlFlow::Continue(())
    }
}

impl Lost {
    /// Why `route` comes after `winner`, if both fit.
    pub fn to(winner: &Route, route: &Route) -> Self {
        if route.path == PathMatch::Rest && winner.path != PathMatch::Rest {
            return Self::OnlyDefault;
        }
        if route.host != winner.host {
            return Self::Host(winner.host.clone());
        }
        let (path, won) = (route.path.text(), winner.path.text());
        if path.trim_end_matches('/') == won.trim_end_matches('/')
            && matches!(
                (&winner.path, &route.path),
                (PathMatch::Exact(_), PathMatch::Prefix(_))
            )
        {
            return Self::NotExact;
        }
        if path != won {
            return Self::Path(winner.path.clone());
        }
        if rank(&route.predicates) != rank(&winner.predicates) {
            return Self::Predicates;
        }
        Self::by_origin(&winner.origin, &route.origin)
    }

    fn by_origin(winner: &Origin, origin: &Origin) -> Self {
        if winner.object == origin.object {
            Self::Behind
        } else if winner.created == origin.created {
            Self::Name(winner.object.clone())
        } else {
            Self::Younger(winner.object.clone())
        }
    }
}

impl PathMatch {
    /// The path; empty for [`Self::Rest`].
    pub fn text(&self) -> &str {
        match self {
            Self::Exact(path) | Self::Prefix(path) => path,
            Self::Rest => "",
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Predicate(predicate) => write!(f, "the request has not: {predicate}"),
            Self::OnlyDefault => f.write_str("a default backend, and a rule matches"),
            Self::Host(host) => write!(f, "host {host} is more specific"),
            Self::Path(path) => write!(f, "path {path} is longer"),
            Self::NotExact => f.write_str("the same path is there as Exact"),
            Self::Predicates => f.write_str("the winner asks for more: method, headers, query"),
            Self::Younger(object) => write!(f, "younger than {object}"),
            Self::Name(object) => write!(f, "as old as {object}, whose name comes first"),
            Self::Behind => f.write_str("behind it in the same object"),
        }
    }
}

impl fmt::Display for HostMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.pad(name),
            Self::Wildcard {
                suffix,
                depth: WildcardDepth::One,
            } => f.pad(&format!("*.{suffix}")),
            Self::Wildcard {
                suffix,
                depth: WildcardDepth::Many,
            } => f.pad(&format!("*.{suffix} (any depth)")),
            Self::Any => f.pad("(any)"),
        }
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.pad(&format!("{path} (Exact)")),
            Self::Prefix(path) => f.pad(&format!("{path} (Prefix)")),
            Self::Rest => f.pad("(default backend)"),
        }
    }
}
