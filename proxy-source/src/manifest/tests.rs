//! Documents of a file, one by one.

use super::*;

fn names(manifest: &Manifest) -> Vec<String> {
    manifest
        .objects
        .iter()
        .map(|object| format!("{} {}", object.kind(), object.name()))
        .collect()
}

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: shop\nspec: {{}}\n")
}

#[test]
fn a_file_may_hold_many_documents() {
    let text = format!(
        "# a comment\n---\n{}---\n\n--- # nothing\n---\n{}...\n---\r\n{}",
        service("a"),
        service("b"),
        service("c").replace('\n', "\r\n"),
    );
    let manifest = read(Format::Yaml, &text, &Kind::ALL);
    assert_eq!(manifest.broken, []);
    assert_eq!(
        names(&manifest),
        ["Service shop/a", "Service shop/b", "Service shop/c"]
    );
}

#[test]
fn a_broken_document_costs_that_document_and_is_named_by_its_line_in_the_file() {
    let text = format!(
        "{}---\nkind: Service\nmetadata: [\n---\n{}",
        service("a"),
        service("b")
    );
    let manifest = read(Format::Yaml, &text, &Kind::ALL);
    assert_eq!(names(&manifest), ["Service shop/a", "Service shop/b"]);
    let [broken] = manifest.broken.as_slice() else {
        panic!("{:?}", manifest.broken)
    };
    // Seven lines of the first document with its separator, then the open bracket on the second line after it.
    assert!((9..=10).contains(&broken.line), "{broken:?}");
    assert!(!broken.what.contains('\n'), "{broken:?}");
    assert!(!broken.what.contains("line 2"), "{broken:?}");
}

#[test]
fn an_object_that_does_not_decode_is_named_with_the_line_that_its_document_begins_on() {
    let text = format!(
        "{}---\n# the second\napiVersion: v1\nkind: Service\nmetadata: {{name: b, namespace: shop}}\nspec: nonsense\n",
        service("a")
    );
    let manifest = read(Format::Yaml, &text, &Kind::ALL);
    assert_eq!(names(&manifest), ["Service shop/a"]);
    assert_eq!(manifest.broken.len(), 1);
    assert_eq!(manifest.broken[0].line, 9, "{:?}", manifest.broken);
}

#[test]
fn duplicate_keys_are_a_mistake() {
    let manifest = read(Format::Yaml, "kind: Service\nkind: Node\n", &Kind::ALL);
    assert_eq!(manifest.broken.len(), 1, "{manifest:?}");
    assert_eq!(manifest.broken[0].line, 2);
    let what = &manifest.broken[0].what;
    assert!(
        what.contains("kind") && what.ends_with(": remove one of the two"),
        "{what}"
    );
}

#[test]
fn lists_are_opened() {
    let items = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a, namespace: x}, spec: {}}\n\
         - {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}\n---\n\
         apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: c, namespace: x}\n  spec: {}\n";
    let manifest = read(Format::Yaml, items, &Kind::ALL);
    assert_eq!(manifest.broken, []);
    assert_eq!(names(&manifest), ["Service x/a", "Service x/c"]);
    assert_eq!(
        read(Format::Yaml, "kind: List\nitems: 5\n", &Kind::ALL)
            .broken
            .len(),
        1
    );
}

#[test]
fn json_files_may_hold_several_values() {
    let one = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"a","namespace":"x"},"spec":{}}"#;
    let two = one.replace("\"a\"", "\"b\"");
    let manifest = read(
        Format::Json,
        format!("{one}\n{two}\n{{\n\"kind\": }}"),
        &Kind::ALL,
    );
    assert_eq!(names(&manifest), ["Service x/a", "Service x/b"]);
    assert_eq!(manifest.broken.len(), 1);
    assert_eq!(manifest.broken[0].line, 4);
}

#[test]
fn only_manifests_count() {
    assert_eq!(Format::of("a.yaml"), Some(Format::Yaml));
    assert_eq!(Format::of("a.b.yml"), Some(Format::Yaml));
    assert_eq!(Format::of("a.json"), Some(Format::Json));
    for other in [
        "yaml",
        ".a.yaml",
        "..data",
        "#a.yaml#",
        ".#a.yaml",
        "a.yaml~",
        "a.yaml.swp",
        "4913",
    ] {
        assert_eq!(Format::of(other), None, "{other}");
    }
}

#[test]
fn directives_and_byte_order_marks_are_no_trouble() {
    let manifest = read(
        Format::Yaml,
        format!("\u{feff}%YAML 1.2\n---\n{}", service("a")),
        &Kind::ALL,
    );
    assert_eq!(manifest.broken, []);
    assert_eq!(names(&manifest), ["Service shop/a"]);
}

#[test]
fn no_text_makes_it_panic() {
    for text in [
        "",
        "---",
        "--- ",
        "a: &a [*a]",
        "\0",
        "- ",
        "? ",
        "[",
        "kind: 5",
        "kind: List",
        "5",
        "\"x",
    ] {
        let _ = read(Format::Yaml, text, &Kind::ALL);
        let _ = read(Format::Json, text, &Kind::ALL);
    }
}

#[test]
fn a_json_value_that_is_not_utf8_costs_itself() {
    let service = |name: &str| {
        format!(
            r#"{{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "{name}", "namespace": "shop"}}}}"#
        )
    };
    let mut content = service("a").into_bytes();
    content.extend(b"\n{\"text\": \"\xff\"}\n\n");
    content.extend(service("b").into_bytes());
    let manifest = read(Format::Json, content, &Kind::ALL);
    assert_eq!(manifest.objects.len(), 2, "{manifest:?}");
    assert_eq!(manifest.broken.len(), 1);
    assert_eq!(manifest.broken[0].line, 2);
}

#[test]
fn what_is_not_read_is_said_with_its_line() {
    let text = format!(
        "{}---\n{}---\napiVersion: v1\nkind: Endpoints\nmetadata: {{name: b, namespace: shop}}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: c}}\n",
        service("a"),
        service("b").replace("kind: Service", "kind: Services"),
    );
    let manifest = read(Format::Yaml, &text, &Kind::ALL);
    assert_eq!(names(&manifest), ["Service shop/a"]);
    let said = |list: &[Broken]| -> Vec<(usize, String)> {
        let what = |one: &Broken| {
            one.what
                .split(['(', ':'])
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        list.iter().map(|one| (one.line, what(one))).collect()
    };
    assert_eq!(said(&manifest.broken), [(8, "Services shop/b".to_owned())]);
    assert_eq!(
        said(&manifest.remarks),
        [(15, "Endpoints shop/b is not used".to_owned())]
    );
}
