//! One kind out of several parts that are followed apart, as namespaces are.
//!
//! `Replace` means that nothing else is there, so it waits for the complete lists of all parts. What changes until then
//! in a part that is complete is kept with it.

use std::collections::BTreeMap;

use proxy_model::{Change, Kind, Object, ObjectName};

use crate::Changes;

pub(crate) struct Merge {
    kind: Kind,
    /// What is in each part with a complete list. Empty when all of it has been passed on.
    parts: Vec<Option<BTreeMap<ObjectName, Object>>>,
}

impl Merge {
    /// Of so many parts.
    pub(crate) fn new(kind: Kind, parts: usize) -> Self {
        // One part is the whole.
        let waited_for = if parts == 1 { 0 } else { parts };
        Self {
            kind,
            parts: vec![None; waited_for],
        }
    }

    /// What changes in the whole by these changes in a part.
    pub(crate) fn take(&mut self, place: usize, changes: Changes) -> Changes {
        if self.parts.is_empty() {
            return changes;
        }
        if let Some(part) = self.parts.get_mut(place) {
            for change in changes {
                keep(part, change);
            }
        }
        if self.parts.iter().any(Option::is_none) {
            return Changes::new();
        }
        let parts = std::mem::take(&mut self.parts);
        let whole: BTreeMap<ObjectName, Object> = parts.into_iter().flatten().flatten().collect();
        vec![Change::Replace(self.kind, whole.into_values().collect())]
    }
}

fn keep(part: &mut Option<BTreeMap<ObjectName, Object>>, change: Change) {
    match (change, part.as_mut()) {
        (Change::Replace(_, list), _) => {
            *part = Some(list.into_iter().map(|object| (object.name(), object)).collect());
        }
        (Change::Put(object), Some(objects)) => drop(objects.insert(object.name(), object)),
        (Change::Delete(_, name), Some(objects)) => drop(objects.remove(&name)),
        // Nothing is told of a part before its list.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proxy_model::api::ApiService;

    use super::*;

    fn service(namespace: &str, name: &str, uid: &str) -> Object {
        let mut service = ApiService::default();
        service.metadata.namespace = Some(namespace.to_owned());
        service.metadata.name = Some(name.to_owned());
        service.metadata.uid = Some(uid.to_owned());
        Object::Service(service)
    }

    fn said(changes: &Changes) -> Vec<String> {
        let one = |object: &Object| {
            format!(
                "{}={}",
                object.name(),
                object.metadata().uid.clone().unwrap_or_default()
            )
        };
        let all = changes.iter().map(|change| match change {
            Change::Replace(_, list) => list.iter().map(one).collect::<Vec<_>>().join(" "),
            Change::Put(object) => format!("put {}", one(object)),
            Change::Delete(_, name) => format!("delete {name}"),
            other => format!("{other:?}"),
        });
        all.collect()
    }

    #[test]
    fn nothing_is_complete_before_all_parts_are() {
        let mut merge = Merge::new(Kind::Service, 3);
        let replace = |objects: &[Object]| vec![Change::Replace(Kind::Service, objects.to_vec())];
        let list = [service("a", "x", "1"), service("a", "y", "1")];
        assert_eq!(said(&merge.take(0, replace(&list))), Vec::<String>::new());
        // What changes meanwhile is not lost.
        let changes = vec![
            Change::Put(service("a", "x", "2")),
            Change::Delete(Kind::Service, ObjectName::new("a", "y")),
            Change::Put(service("a", "z", "1")),
        ];
        assert_eq!(said(&merge.take(0, changes)), Vec::<String>::new());
        assert_eq!(said(&merge.take(2, replace(&[]))), Vec::<String>::new());
        let whole = merge.take(1, replace(&[service("b", "x", "1")]));
        assert_eq!(said(&whole), ["a/x=2 a/z=1 b/x=1"]);
        // From now on it is passed on as it comes.
        let changes = vec![Change::Delete(Kind::Service, ObjectName::new("b", "x"))];
        assert_eq!(said(&merge.take(1, changes)), ["delete b/x"]);
    }

    #[test]
    fn one_part_is_the_whole() {
        let mut merge = Merge::new(Kind::Service, 1);
        let put = vec![Change::Put(service("a", "x", "1"))];
        assert_eq!(said(&merge.take(0, put)), ["put a/x=1"]);
    }
}
