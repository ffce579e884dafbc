//! One manifest file: text in, objects and named mistakes out.
//!
//! Documents are split here and not by the YAML parser, so that a mistake costs the document it is in and no other.

use std::borrow::Cow;

use proxy_model::{Kind, Object};
use serde_json::Value;

/// What a file says.
#[derive(Debug, Default)]
pub(crate) struct Manifest {
    /// The objects of the kinds that are wanted, in the order of the file.
    pub(crate) objects: Vec<Object>,
    /// The documents that cannot be used.
    pub(crate) broken: Vec<Broken>,
    /// Those that are whole, and of no use: nothing is kept for their sake.
    pub(crate) remarks: Vec<Broken>,
    kinds: &'static [Kind],
}

/// A document that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Broken {
    /// Line of the file, counted from 1.
    pub(crate) line: usize,
    /// What is wrong with it.
    pub(crate) what: String,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Documents separated by `---`.
    Yaml,
    /// JSON values, one after the other.
    Json,
}

impl Format {
    /// The format of a file by its name; `None` if it is no manifest. Names that begin with a dot or a hash sign, or
    /// end otherwise, are what editors and a mounted ConfigMap leave beside the real files.
    pub(crate) fn of(file_name: &str) -> Option<Self> {
        if file_name.starts_with(['.', '#']) {
            return None;
        }
        match file_name.rsplit_once('.')?.1 {
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Reads the objects of some kinds in a file. A document with a line that is not UTF-8 is broken, and no other is.
pub(crate) fn read(format: Format, content: impl AsRef<[u8]>, kinds: &'static [Kind]) -> Manifest {
    let content = content.as_ref();
    // Only the bytes of the mistake are replaced, so the lines stay what they are.
    let text = String::from_utf8_lossy(content);
    let unclear = match &text {
        Cow::Borrowed(_) => Vec::new(),
        Cow::Owned(_) => lines_that_are_not_utf8(content),
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut manifest = Manifest {
        kinds,
        ..Manifest::default()
    };
    match format {
        Format::Yaml => {
            for document in documents(text) {
                match not_utf8(&unclear, document.first_line, document.text)
                    .map_or_else(|| yaml(&document), Err)
                {
                    Ok(value) => manifest.add(value, document.content_line()),
                    Err(broken) => manifest.broken.push(broken),
                }
            }
        }
        Format::Json => read_json(text, &unclear, &mut manifest),
    }
    manifest
}

/// Numbers of lines, from 1.
fn lines_that_are_not_utf8(content: &[u8]) -> Vec<usize> {
    let lines = content.split(|byte| *byte == b'\n').zip(1..);
    lines
        .filter(|(line, _)| std::str::from_utf8(line).is_err())
        .map(|(_, number)| number)
        .collect()
}

/// The mistake in a part of a file that begins on this line, if one of the `unclear` lines is in it.
fn not_utf8(unclear: &[usize], first_line: usize, part: &str) -> Option<Broken> {
    let lines = first_line..first_line + part.lines().count();
    let line = unclear.iter().copied().find(|line| lines.contains(line))?;
    Some(Broken {
        line,
        what: format!("is not valid UTF-8 at line {line}: save it as UTF-8"),
    })
}

impl Manifest {
    fn add(&mut self, value: Value, line: usize) {
        match value {
            Value::Null => {}
            Value::Object(_) if is_list(&value) => self.add_list(value, line),
            value => self.add_object(value, line),
        }
    }

    fn add_object(&mut self, value: Value, line: usize) {
        let remark = proxy_model::remark(&value);
        match Object::read(value, self.kinds) {
            Ok(Some(object)) => self.objects.push(object),
            Ok(None) => tracing::debug!(line, "a kind that is not read here"),
            Err(error) => {
                let what = crate::error::chain(&error);
                return self.broken.push(Broken { line, what });
            }
        }
        self.remarks.extend(remark.map(|what| Broken { line, what }));
    }

    fn add_list(&mut self, mut list: Value, line: usize) {
        let kind = text_at(&list, "/kind").to_owned();
        let api_version = text_at(&list, "/apiVersion").to_owned();
        let items = match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            None | Some(Value::Null) => Vec::new(),
            Some(_) => {
                self.broken.push(Broken {
                    line,
                    what: format!("{kind}: items is not a list"),
                });
                return;
            }
        };
        for mut item in items {
            // In a ServiceList, as the API server answers it, the items do not repeat what they are.
            if let (Some(item_kind), Some(item)) = (kind.strip_suffix("List"), item.as_object_mut())
                && !item_kind.is_empty()
            {
                item.entry("kind").or_insert_with(|| item_kind.into());
                item.entry("apiVersion")
                    .or_insert_with(|| api_version.clone().into());
            }
            self.add(item, line);
        }
    }
}

fn is_list(value: &Value) -> bool {
    matches!(
        text_at(value, "/kind"),
        "List"
            | "ServiceList"
            | "EndpointSliceList"
            | "NodeList"
            | "ServiceCIDRList"
            | "IngressList"
            | "IngressClassList"
            | "SecretList"
    )
}

fn text_at<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A part of a file between two `---` lines.
#[derive(Debug, PartialEq, Eq)]
struct Document<'t> {
    /// Line of the file that `text` begins on, from 1.
    first_line: usize,
    text: &'t str,
}

impl Document<'_> {
    /// The first line that says something.
    fn content_line(&self) -> usize {
        let blank = self.text.lines().take_while(|line| says_nothing(line)).count();
        self.first_line + blank
    }
}

fn says_nothing(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#') || line == "---"
}

/// Splits at lines that begin with `---`, which no content of a block may (YAML 1.2, 9.1.2).
fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut first_line, mut at) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if at > start && is_separator(line) {
            documents.extend(document(text.get(start..at), first_line));
            (start, first_line) = (at, index + 1);
        }
        at += line.len();
    }
    documents.extend(document(text.get(start..), first_line));
    documents
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

fn document(text: Option<&str>, first_line: usize) -> Option<Document<'_>> {
    let text = text?;
    // A directive (`%YAML 1.2`) stands before its document's `---`, so it is alone here.
    let empty = text
        .lines()
        .all(|line| says_nothing(line) || line.starts_with('%') || line.trim() == "...");
    (!empty).then_some(Document { first_line, text })
}

fn yaml(document: &Document<'_>) -> Result<Value, Broken> {
    serde_saphyr::from_str(document.text).map_err(|_| yaml_mistake(document))
}

/// Reads the document once more, moved down to its place in the file: then all lines that the message names are lines
/// of the file.
fn yaml_mistake(document: &Document<'_>) -> Broken {
    let mut placed = "\n".repeat(document.first_line - 1);
    placed.push_str(document.text);
    match serde_saphyr::from_str::<Value>(&placed) {
        Ok(_) => Broken {
            line: document.content_line(),
            what: "this document cannot be read".to_owned(),
        },
        Err(error) => Broken {
            line: error
                .location()
                .and_then(|location| usize::try_from(location.line()).ok())
                .unwrap_or_else(|| document.content_line()),
            what: in_our_words(without_place(&one_line(&error.without_snippet().to_string()))),
        },
    }
}

/// The parser ends its messages with the place, which stands before them here.
fn without_place(message: &str) -> &str {
    message.split_once(" at line ").map_or(message, |(what, _)| what)
}

/// And speaks to programmers where it is an operator who has to do something.
fn in_our_words(message: &str) -> String {
    if let Some((what, _)) = message.split_once(", set DuplicateKeyPolicy") {
        return format!("{what}: remove one of the two");
    }
    match message.strip_prefix("budget breached: ") {
        Some(what) => format!("more than a manifest may be ({what}): split it, and use fewer aliases"),
        None => message.to_owned(),
    }
}

fn read_json(text: &str, unclear: &[usize], manifest: &mut Manifest) {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    loop {
        let rest = text.get(values.byte_offset()..).unwrap_or_default();
        let start = text.len() - rest.trim_start().len();
        let line = 1 + text.get(..start).map_or(0, |before| before.matches('\n').count());
        match values.next() {
            None => return,
            Some(Ok(value)) => {
                let part = text.get(start..values.byte_offset()).unwrap_or_default();
                match not_utf8(unclear, line, part) {
                    Some(broken) => manifest.broken.push(broken),
                    None => manifest.add(value, line),
                }
            }
            Some(Err(error)) => {
                manifest.broken.push(Broken {
                    line: error.line(),
                    what: without_place(&one_line(&error.to_string())).to_owned(),
                });
                return;
            }
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
