//! The chart's schema and its values speak of the same things, and each value is explained.

use anyhow::{Result, ensure};
use serde_json::{Map, Value};

use super::chart::Chart;

/// Compares `values.schema.json` with `values.yaml`.
pub(super) fn check(chart: &Chart) -> Result<()> {
    let mut findings = Vec::new();
    compare("", &chart.schema, &chart.values, &mut findings);
    findings.extend(unexplained(&chart.text, &chart.leaves()));
    ensure!(
        findings.is_empty(),
        "deploy/helm/weir: values.yaml and values.schema.json: {}",
        findings.join("; ")
    );
    Ok(())
}

fn compare(at: &str, schema: &Value, value: &Value, findings: &mut Vec<String>) {
    if !fits(schema, value) {
        findings.push(format!("{at} is {value}, which the schema does not allow"));
    }
    let (Some(properties), Some(values)) = (schema["properties"].as_object(), value.as_object()) else {
        return;
    };
    if schema["additionalProperties"] != Value::Bool(false) {
        findings.push(format!("{at}: the schema takes any name, also a misspelt one"));
    }
    names(at, properties, values, findings);
    for (name, value) in values {
        if let Some(schema) = properties.get(name) {
            compare(&format!("{at}/{name}"), schema, value, findings);
        }
    }
}

fn names(at: &str, schema: &Map<String, Value>, values: &Map<String, Value>, findings: &mut Vec<String>) {
    let unknown = values.keys().filter(|name| !schema.contains_key(*name));
    findings.extend(unknown.map(|name| format!("{at}/{name} is not in the schema")));
    // Helm itself puts `global` there.
    let missing = schema
        .keys()
        .filter(|name| !values.contains_key(*name) && *name != "global");
    findings.extend(missing.map(|name| format!("{at}/{name} is only in the schema")));
}

/// By type and list of choices: Helm checks the rest when somebody installs.
fn fits(schema: &Value, value: &Value) -> bool {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(|one| one == kind),
        one => one == kind,
    };
    allowed && schema["enum"].as_array().is_none_or(|list| list.contains(value))
}

/// Values that no comment stands above.
fn unexplained(text: &str, values: &[String]) -> Vec<String> {
    let (mut group, mut above) = ("", "");
    let mut findings = Vec::new();
    for line in text.lines() {
        let name = line.trim_start().split(':').next().unwrap_or_default();
        let pointer = match line.len() - line.trim_start().len() {
            0 => format!("/{name}"),
            _ => format!("/{group}/{name}"),
        };
        if values.contains(&pointer) && !above.trim_start().starts_with('#') {
            findings.push(format!("nothing explains {pointer}"));
        }
        if !line.starts_with([' ', '#']) {
            group = name;
        }
        above = line;
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_that_says_something_else_is_found() {
        let schema = json!({"type": "object", "additionalProperties": false, "properties": {
            "host": {"type": "string"}, "policy": {"type": "string", "enum": ["a"]}, "gone": {"type": "object"},
        }});
        let mut findings = Vec::new();
        let values = json!({"host": 1, "policy": "b", "new": true});
        compare("", &schema, &values, &mut findings);
        assert_eq!(
            findings,
            [
                "/new is not in the schema",
                "/gone is only in the schema",
                "/host is 1, which the schema does not allow",
                "/policy is \"b\", which the schema does not allow",
            ]
        );
        compare(
            "",
            &json!({"type": "object", "properties": {}}),
            &json!({}),
            &mut findings,
        );
        assert_eq!(findings.len(), 5, "open to any name");
    }

    #[test]
    fn each_value_has_a_comment() {
        let text = "# A\na: 1\nb:\n  # C\n  c: 1\n  d:\n    # E\n    e: 1\n";
        let values = ["/a", "/b/c", "/b/d"].map(str::to_owned);
        assert_eq!(unexplained(text, &values), ["nothing explains /b/d"]);
    }
}
