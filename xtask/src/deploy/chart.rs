//! The Helm chart, rendered without Helm: by Go's template engine, which Helm uses too (deploy/test/render.go).

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use super::objects::{self, Objects};
use crate::{go, packages, shell, workspace};

const FOLDER: &str = "deploy/helm/weir";

/// What is in the chart's folder.
pub(super) struct Chart {
    templates: BTreeMap<String, String>,
    facts: Value,
    /// values.yaml as it is, with its comments.
    pub(super) text: String,
    pub(super) values: Value,
    pub(super) schema: Value,
}

impl Chart {
    pub(super) fn read() -> Result<Self> {
        let mut templates = BTreeMap::new();
        for entry in fs::read_dir(workspace::root().join(FOLDER).join("templates"))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            templates.insert(name.into_owned(), fs::read_to_string(&path)?);
        }
        let text = workspace::read(&format!("{FOLDER}/values.yaml"))?;
        Ok(Self {
            templates,
            facts: exported(one(&workspace::read(&format!("{FOLDER}/Chart.yaml"))?)?),
            values: one(&text)?,
            text,
            schema: serde_json::from_str(&workspace::read(&format!("{FOLDER}/values.schema.json"))?)
                .context("values.schema.json")?,
        })
    }

    /// The objects that the chart makes with each of these over its own values.
    pub(super) fn render(&self, given: &[Value]) -> Result<Vec<Objects>> {
        let values = given.iter().map(|given| {
            let mut values = self.values.clone();
            overlay(&mut values, given);
            values
        });
        let question = json!({
            "templates": self.templates,
            "values": values.collect::<Vec<_>>(),
            "chart": self.facts,
            "namespace": "kube-system",
        });
        let rendered: Vec<BTreeMap<String, String>> = serde_json::from_str(&run_go(&question.to_string())?)?;
        let answers = rendered.iter().zip(given);
        answers.map(|(files, given)| read(files, given)).collect()
    }

    /// Pointers to all values that a user can set: what is below a map that the chart leaves open is one value.
    pub(super) fn leaves(&self) -> Vec<String> {
        leaves(&self.schema, &self.values)
    }
}

fn read(files: &BTreeMap<String, String>, given: &Value) -> Result<Objects> {
    let mut all = Objects::default();
    // NOTES.txt is for people.
    for (name, text) in files.iter().filter(|(name, _)| *name != "NOTES.txt") {
        all.read(text)
            .with_context(|| format!("the template {name} with {given} makes:\n{text}"))?;
    }
    Ok(all)
}

fn one(text: &str) -> Result<Value> {
    objects::parse(text)?.pop().context("an empty file")
}

/// `appVersion` is `.Chart.AppVersion` in a template.
fn exported(facts: Value) -> Value {
    let Value::Object(facts) = facts else { return facts };
    let upper = |name: String| {
        let mut letters = name.chars();
        letters.next().map_or(String::new(), |first| {
            first.to_ascii_uppercase().to_string() + letters.as_str()
        })
    };
    let facts: Map<_, _> = facts
        .into_iter()
        .map(|(name, fact)| (upper(name), fact))
        .collect();
    facts.into()
}

/// As Helm does with `--set`: maps into maps, all else replaces.
fn overlay(values: &mut Value, given: &Value) {
    match (values, given) {
        (Value::Object(values), Value::Object(given)) => {
            for (name, inner) in given {
                overlay(values.entry(name.clone()).or_insert(Value::Null), inner);
            }
        }
        (values, given) => values.clone_from(given),
    }
}

fn run_go(question: &str) -> Result<String> {
    let mut go = shell::command(go::find()?, ["run", "render.go"]);
    go.current_dir(workspace::root().join("deploy/test"))
        .env("PATH", packages::search_path())
        // The library of the Go that was found will do, whatever a go.mod asks for.
        .env("GOTOOLCHAIN", "local")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = go.spawn().with_context(|| shell::cannot_start(&go))?;
    // Closed when it has been written, or the program would wait for more.
    let mut input = child.stdin.take().context("no way to ask")?;
    input.write_all(question.as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "the templates of {FOLDER} cannot be rendered"
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn leaves(schema: &Value, values: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for (name, value) in values.as_object().into_iter().flatten() {
        let grouped = schema
            .pointer(&format!("/properties/{name}/properties"))
            .is_some();
        match value.as_object().filter(|_| grouped) {
            Some(group) => all.extend(group.keys().map(|inner| format!("/{name}/{inner}"))),
            None => all.push(format!("/{name}")),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_laid_over_values() {
        let mut values = json!({"image": {"tag": "", "policy": "x"}, "list": [1]});
        overlay(&mut values, &json!({"image": {"tag": "1"}, "list": []}));
        assert_eq!(values, json!({"image": {"tag": "1", "policy": "x"}, "list": []}));
    }

    #[test]
    fn groups_are_opened() {
        let schema = json!({"properties": {"image": {"properties": {}}, "resources": {"type": "object"}}});
        let values = json!({"image": {"tag": "", "policy": "x"}, "resources": {"cpu": 1}});
        assert_eq!(
            leaves(&schema, &values),
            ["/image/policy", "/image/tag", "/resources"]
        );
    }
}
