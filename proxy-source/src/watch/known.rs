//! What has been told of one kind, or of a part of it.
//!
//! ```text
//!  first complete list ──▶ Replace          later lists ──▶ Put for each, Delete for those that are gone
//!                                           events      ──▶ Put, Delete
//! ```
//!
//! Only names are remembered. An object that cannot be decoded counts as there: what was made from an earlier version
//! of it stays (docs/decisions/0012).

use std::collections::{BTreeMap, BTreeSet};

use kube::api::ApiResource;
use kube::runtime::watcher::Event;
use proxy_model::{Change, Kind, Object, ObjectName};

use super::{Learn, name_of};
use crate::Changes;
use crate::error::chain;
use crate::raw::Raw;

/// A part of a kind, and what happened there.
pub(crate) type Heard = (usize, Changes);

/// What has been told of one kind.
pub(crate) struct Known {
    /// Which part of the kind this is, of several that are followed apart.
    place: usize,
    kind: Kind,
    resource: ApiResource,
    names: BTreeSet<ObjectName>,
    /// Whether a complete list has been seen.
    complete: bool,
    /// The list that is being read.
    list: Option<List>,
    /// What cannot be decoded, and why.
    undecodable: BTreeMap<ObjectName, String>,
}

#[derive(Default)]
struct List {
    names: BTreeSet<ObjectName>,
    /// Only of the first list: later ones are told object by object.
    objects: Vec<Object>,
}

impl Learn for Known {
    type Item = Raw;
    type News = Heard;

    fn listing(&self) -> bool {
        self.list.is_some()
    }

    fn learn(&mut self, event: Event<Raw>) -> Option<Heard> {
        let changes = self.hear(event);
        (!changes.is_empty()).then_some((self.place, changes))
    }
}

impl Known {
    pub(crate) fn new(place: usize, kind: Kind, resource: ApiResource) -> Self {
        Self {
            place,
            kind,
            resource,
            names: BTreeSet::new(),
            complete: false,
            list: None,
            undecodable: BTreeMap::new(),
        }
    }

    fn hear(&mut self, event: Event<Raw>) -> Changes {
        match event {
            Event::Init => {
                self.list = Some(List::default());
                Changes::new()
            }
            Event::InitApply(raw) => self.listed(raw),
            Event::InitDone => self.list_done(),
            Event::Apply(raw) => {
                let Some(name) = name_of(&raw, &self.resource) else {
                    return Changes::new();
                };
                self.names.insert(name.clone());
                self.decode(&name, raw).map(Change::Put).into_iter().collect()
            }
            Event::Delete(raw) => {
                let Some(name) = name_of(&raw, &self.resource) else {
                    return Changes::new();
                };
                self.names.remove(&name);
                self.undecodable.remove(&name);
                vec![Change::Delete(self.kind, name)]
            }
        }
    }

    fn listed(&mut self, raw: Raw) -> Changes {
        let Some(name) = name_of(&raw, &self.resource) else {
            return Changes::new();
        };
        let object = self.decode(&name, raw);
        let list = self.list.get_or_insert_default();
        list.names.insert(name);
        if self.complete {
            return object.map(Change::Put).into_iter().collect();
        }
        list.objects.extend(object);
        Changes::new()
    }

    fn list_done(&mut self) -> Changes {
        let list = self.list.take().unwrap_or_default();
        let before = std::mem::replace(&mut self.names, list.names);
        self.undecodable.retain(|name, _| self.names.contains(name));
        if !std::mem::replace(&mut self.complete, true) {
            return vec![Change::Replace(self.kind, list.objects)];
        }
        let gone = before.difference(&self.names);
        gone.map(|name| Change::Delete(self.kind, name.clone())).collect()
    }

    /// `None` if it cannot be used, which is logged once for each reason.
    fn decode(&mut self, name: &ObjectName, raw: Raw) -> Option<Object> {
        let what = match Object::read(raw.into_value(&self.resource), &[self.kind]) {
            Ok(Some(object)) => {
                if self.undecodable.remove(name).is_some() {
                    tracing::info!("{} {name} can be read again", self.kind);
                }
                return Some(object);
            }
            Ok(None) => "is of no kind that weir knows".to_owned(),
            Err(error) => chain(&error),
        };
        if self.undecodable.get(name) != Some(&what) {
            tracing::warn!(
                "{} {name} cannot be read ({what}): correct it; what weir knew of it before stays",
                self.kind
            );
            self.undecodable.insert(name.clone(), what);
        }
        None
    }
}
