//! Kubernetes objects as they stand in files, by their names; compared and patched as kustomize does.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Objects by kind and name.
#[derive(Default, Clone)]
pub(super) struct Objects(BTreeMap<String, Value>);

/// The documents of a file.
pub(super) fn parse(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("this is no YAML")?;
    Ok(documents.into_iter().filter(|one| !one.is_null()).collect())
}

impl Objects {
    /// Adds those of a file.
    pub(super) fn read(&mut self, text: &str) -> Result<()> {
        for object in parse(text)? {
            let name = name(&object)?;
            ensure!(
                self.0.insert(name.clone(), object).is_none(),
                "{name} is there twice"
            );
        }
        Ok(())
    }

    /// Changes those that a file of patches names.
    pub(super) fn patch(&mut self, text: &str) -> Result<()> {
        for patch in parse(text)? {
            let name = name(&patch)?;
            let object = self.0.get_mut(&name);
            merge(
                object.with_context(|| format!("there is no {name} to patch"))?,
                patch,
            );
        }
        Ok(())
    }

    /// Adds those of another folder.
    pub(super) fn join(&mut self, other: Self) -> Result<()> {
        for (name, object) in other.0 {
            ensure!(
                self.0.insert(name.clone(), object).is_none(),
                "{name} is there twice"
            );
        }
        Ok(())
    }

    /// Carries out operations (RFC 6902) on those that kustomize's `target` selects; ours append to lists only.
    pub(super) fn edit(&mut self, target: &Value, text: &str) -> Result<()> {
        let field = |field: &str| target.get(field).and_then(Value::as_str).unwrap_or_default();
        let kinds: Vec<_> = field("kind").split('|').collect();
        let chosen = self.0.values_mut().filter(|object| {
            let is = |pointer: &str| {
                object
                    .pointer(pointer)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            kinds.contains(&is("/kind")) && is("/metadata/name") == field("name")
        });
        let operations = parse(text)?.pop();
        let operations = operations.as_ref().and_then(Value::as_array);
        let operations = operations.context("this is no list of operations")?;
        let mut count = 0;
        for object in chosen {
            count += 1;
            operations
                .iter()
                .try_for_each(|operation| append(object, operation))?;
        }
        ensure!(count > 0, "nothing is {target}");
        Ok(())
    }

    /// An error that names the first difference.
    pub(super) fn same_as(&self, other: &Self) -> Result<()> {
        let names: BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        for name in names {
            match (self.0.get(name), other.0.get(name)) {
                (Some(one), Some(two)) => {
                    if let Some(difference) = difference("", one, two) {
                        bail!("differ in {name}: {difference}");
                    }
                }
                (one, _) => {
                    let which = if one.is_some() { "first" } else { "second" };
                    bail!("differ: only the {which} has {name}");
                }
            }
        }
        Ok(())
    }

    /// The value at `pointer` of the object that is called so.
    pub(super) fn at(&self, name: &str, pointer: &str) -> Option<&Value> {
        self.0.get(name)?.pointer(pointer)
    }

    /// Images of all containers.
    pub(super) fn images(&self) -> impl Iterator<Item = &str> {
        self.0.values().flat_map(|object| {
            ["initContainers", "containers"]
                .into_iter()
                .filter_map(|list| object.pointer(&format!("/spec/template/spec/{list}"))?.as_array())
                .flatten()
                .filter_map(|container| container["image"].as_str())
        })
    }
}

/// `{op: add, path: /a/list/-, value: …}`
fn append(object: &mut Value, operation: &Value) -> Result<()> {
    let text = |field: &str| operation.get(field).and_then(Value::as_str);
    let list = text("path").and_then(|path| path.strip_suffix("/-"));
    let list = list.filter(|_| text("op") == Some("add"));
    let list = list.and_then(|path| object.pointer_mut(path)?.as_array_mut());
    let value = operation.get("value").cloned();
    let (Some(list), Some(value)) = (list, value) else {
        bail!("{operation} appends to no list");
    };
    list.push(value);
    Ok(())
}

/// `DaemonSet kube-system/weir`.
fn name(object: &Value) -> Result<String> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let (Some(kind), Some(name)) = (text("/kind"), text("/metadata/name")) else {
        bail!("an object without kind or name: {object}");
    };
    let namespace = text("/metadata/namespace").map_or(String::new(), |name| format!("{name}/"));
    Ok(format!("{kind} {namespace}{name}"))
}

/// Where two values differ first.
fn difference(at: &str, one: &Value, two: &Value) -> Option<String> {
    let null = Value::Null;
    match (one, two) {
        (Value::Object(first), Value::Object(second)) => {
            let keys: BTreeSet<_> = first.keys().chain(second.keys()).collect();
            keys.into_iter().find_map(|key| {
                let inner = (first.get(key).unwrap_or(&null), second.get(key).unwrap_or(&null));
                difference(&format!("{at}/{key}"), inner.0, inner.1)
            })
        }
        (Value::Array(first), Value::Array(second)) if first.len() == second.len() => (0..)
            .zip(first.iter().zip(second))
            .find_map(|(index, (one, two))| difference(&format!("{at}/{index}"), one, two)),
        _ => (one != two).then(|| format!("{at} is {one} and {two}")),
    }
}

/// As kustomize merges for the types that we patch: lists of things with names by their names, other lists as a whole.
fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(patch)) if patch.iter().all(|item| called(item).is_some()) => {
            for item in patch {
                match into.iter_mut().find(|old| called(old) == called(&item)) {
                    Some(old) => merge(old, item),
                    None => into.push(item),
                }
            }
        }
        (into, patch) => *into = patch,
    }
}

fn called(item: &Value) -> Option<&str> {
    item.get("name")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(text: &str) -> Objects {
        let mut objects = Objects::default();
        objects.read(text).unwrap();
        objects
    }

    const TWO: &str = "kind: A\nmetadata: {name: a}\nspec:\n  list: [{name: one, v: 1}, {name: two, v: 2}]\n---\n\
                       kind: B\nmetadata: {name: b, namespace: space}\n";

    #[test]
    fn differences_are_named() {
        let base = objects(TWO);
        base.same_as(&objects(TWO)).unwrap();
        let other = objects(&TWO.replace("v: 2", "v: 3"));
        let error = base.same_as(&other).unwrap_err().to_string();
        assert_eq!(error, "differ in A a: /spec/list/1/v is 2 and 3");
        let less = objects(TWO.split("---").next().unwrap());
        let error = base.same_as(&less).unwrap_err().to_string();
        assert_eq!(error, "differ: only the first has B space/b");
        let quoted = objects(&TWO.replace("v: 2", "v: \"2\""));
        assert!(base.same_as(&quoted).is_err(), "a number and a text");
    }

    #[test]
    fn operations_append_to_lists_of_what_they_are_for() {
        let mut base = objects(TWO);
        let target = |kind: &str| serde_json::json!({"kind": kind, "name": "a"});
        let text = "[{op: add, path: /spec/list/-, value: 3}]";
        base.edit(&target("X|A"), text).unwrap();
        assert_eq!(base.at("A a", "/spec/list/2"), Some(&3.into()));
        assert!(base.edit(&target("X|B"), text).is_err(), "nobody is meant");
        assert!(
            base.edit(&target("A"), &text.replace("/list/-", "/other/-"))
                .is_err()
        );
        assert!(base.edit(&target("A"), &text.replace("add", "remove")).is_err());
    }

    #[test]
    fn patches_reach_into_lists_by_name() {
        let mut base = objects(TWO);
        base.patch("kind: A\nmetadata: {name: a}\nspec: {list: [{name: two, v: 7}], more: 1}\n")
            .unwrap();
        assert_eq!(base.at("A a", "/spec/list/0/v"), Some(&1.into()));
        assert_eq!(base.at("A a", "/spec/list/1/v"), Some(&7.into()));
        assert!(base.at("A a", "/spec/more").is_some());
        assert!(base.patch("kind: A\nmetadata: {name: other}\n").is_err());
    }
}
