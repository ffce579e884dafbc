//! The paths of one host: a tree by element, asked from the longest path to the shortest.
//!
//! ```text
//!  /            prefix /
//!  └─ shop      exact /shop · exact /shop/ · prefix /shop/, /shop
//!     └─ cart   prefix /shop/cart
//! ```
//!
//! A look-up goes down as far as the request's elements are there, and back up to the root: no list is made on the way.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::{PathMatch, Route, predicate};

/// The routes of one host, by path. Four blocks of memory, however many paths there are: a look-up reads few of them.
#[derive(Debug, Default)]
pub(super) struct Trie {
    /// The root first.
    nodes: Box<[Node]>,
    /// Those of a node side by side, sorted by name.
    edges: Box<[Edge]>,
    /// The names of all edges.
    names: Box<str>,
    /// Those of a node and sort side by side, in the order in which they are asked.
    routes: Box<[Arc<Route>]>,
}

/// A path without its final slash.
#[derive(Debug)]
struct Node {
    parent: Option<u32>,
    /// To the next elements.
    edges: Run,
    /// Routes for this path without a final slash, and for it with one.
    exact: [Run; 2],
    /// Routes for this path and what is below it.
    prefix: Run,
}

/// An element, and the node that it leads to.
#[derive(Debug)]
struct Edge {
    name: Run,
    child: u32,
}

/// A part of an array.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    start: u32,
    end: u32,
}

impl Run {
    /// What was added to an array of this length since it had that one. There are fewer than 2^32 of anything.
    fn since(start: usize, end: usize) -> Self {
        let number = |length| u32::try_from(length).unwrap_or(u32::MAX);
        Self {
            start: number(start),
            end: number(end),
        }
    }

    fn range(self) -> Range<usize> {
        let number = |place| usize::try_from(place).unwrap_or(usize::MAX);
        number(self.start)..number(self.end)
    }
}

/// The elements of a path, and whether a slash ends it.
fn elements(path: &str) -> (impl Iterator<Item = &str>, bool) {
    let path = path.strip_prefix('/').unwrap_or(path);
    let slash = path.is_empty() || path.ends_with('/');
    let rest = (!path.is_empty()).then(|| path.strip_suffix('/').unwrap_or(path));
    (rest.into_iter().flat_map(|rest| rest.split('/')), slash)
}

impl Trie {
    /// Of routes that have a path; others are left out.
    pub(super) fn build(routes: &[Arc<Route>]) -> Self {
        let mut drafts = vec![Draft::default()];
        for route in routes {
            add(&mut drafts, route);
        }
        let mut built = Built::default();
        let nodes = drafts.into_iter().map(|draft| built.node(draft)).collect();
        Self {
            nodes,
            edges: built.edges.into_boxed_slice(),
            names: built.names.into_boxed_str(),
            routes: built.routes.into_boxed_slice(),
        }
    }

    /// Whether it has no route.
    pub(super) fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// All its routes.
    pub(super) fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// Visits the routes whose path fits, in the order in which they are asked.
    pub(super) fn walk<'t>(
        &'t self,
        path: &str,
        visit: &mut impl FnMut(&'t Arc<Route>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let (mut elements, slash) = elements(path);
        let Some(mut node) = self.nodes.first() else {
            return ControlFlow::Continue(());
        };
        let whole = loop {
            let Some(element) = elements.next() else {
                break true;
            };
            let Some(child) = self.child(node, element) else {
                break false;
            };
            node = child;
        };
        if whole {
            let [plain, slashed] = node.exact;
            self.run(if slash { slashed } else { plain }, visit)?;
        }
        loop {
            self.run(node.prefix, visit)?;
            match node.parent.and_then(|parent| self.node(parent)) {
                Some(parent) => node = parent,
                None => return ControlFlow::Continue(()),
            }
        }
    }

    fn run<'t>(
        &'t self,
        run: Run,
        visit: &mut impl FnMut(&'t Arc<Route>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let routes = self.routes.get(run.range()).unwrap_or_default();
        routes.iter().try_for_each(visit)
    }

    fn child(&self, node: &Node, element: &str) -> Option<&Node> {
        let edges = self.edges.get(node.edges.range())?;
        let name = |edge: &Edge| self.names.get(edge.name.range()).unwrap_or_default();
        let found = edges.binary_search_by(|edge| name(edge).cmp(element));
        self.node(edges.get(found.ok()?)?.child)
    }

    fn node(&self, index: u32) -> Option<&Node> {
        self.nodes.get(usize::try_from(index).ok()?)
    }
}

/// A node while the tree is built.
#[derive(Default)]
struct Draft<'a> {
    parent: Option<u32>,
    children: BTreeMap<&'a str, u32>,
    exact: [Vec<&'a Arc<Route>>; 2],
    /// With whether it is written with a final slash.
    prefix: Vec<(bool, &'a Arc<Route>)>,
}

fn add<'a>(drafts: &mut Vec<Draft<'a>>, route: &'a Arc<Route>) {
    let (PathMatch::Exact(path) | PathMatch::Prefix(path)) = &route.path else {
        return;
    };
    let (elements, slash) = elements(path);
    let mut at = 0;
    for element in elements {
        let next = u32::try_from(drafts.len()).unwrap_or(u32::MAX);
        let Some(draft) = drafts.get_mut(at) else {
            return;
        };
        let child = *draft.children.entry(element).or_insert(next);
        if child == next {
            drafts.push(Draft {
                parent: u32::try_from(at).ok(),
                ..Draft::default()
            });
        }
        at = usize::try_from(child).unwrap_or_default();
    }
    let Some(draft) = drafts.get_mut(at) else {
        return;
    };
    let [plain, slashed] = &mut draft.exact;
    match (&route.path, slash) {
        (PathMatch::Exact(_), false) => plain.push(route),
        (PathMatch::Exact(_), true) => slashed.push(route),
        _ => draft.prefix.push((slash, route)),
    }
}

/// The arrays of a tree while it is built.
#[derive(Default)]
struct Built {
    edges: Vec<Edge>,
    names: String,
    routes: Vec<Arc<Route>>,
}

impl Built {
    fn node(&mut self, draft: Draft<'_>) -> Node {
        let first = self.edges.len();
        for (name, child) in draft.children {
            let start = self.names.len();
            self.names.push_str(name);
            self.edges.push(Edge {
                name: Run::since(start, self.names.len()),
                child,
            });
        }
        let edges = Run::since(first, self.edges.len());
        let exact = draft.exact.map(|mut routes| {
            routes.sort_by(|a, b| order(a).cmp(&order(b)));
            self.run(&routes)
        });
        let mut prefix = draft.prefix;
        prefix.sort_by(|(slash_a, a), (slash_b, b)| {
            (Reverse(slash_a), order(a)).cmp(&(Reverse(slash_b), order(b)))
        });
        let prefix: Vec<_> = prefix.into_iter().map(|(_, route)| route).collect();
        Node {
            parent: draft.parent,
            edges,
            exact,
            prefix: self.run(&prefix),
        }
    }

    fn run(&mut self, routes: &[&Arc<Route>]) -> Run {
        let start = self.routes.len();
        self.routes.extend(routes.iter().copied().cloned());
        Run::since(start, self.routes.len())
    }
}

/// The order of routes with the same host and path: who asks for more, then who was first.
pub(super) fn order(route: &Route) -> (predicate::Rank, &super::Origin) {
    (predicate::rank(&route.predicates), &route.origin)
}
