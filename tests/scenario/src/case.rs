//! Reads a scenario file. Everything in it must mean something: an unknown section is an error, and so is a file in
//! which nothing is compared, because such a file would be green for ever.

use std::path::{Path, PathBuf};

use proxy_common::Ip;
use proxy_model::{Kind, Limits, Masquerade, Object, ObjectName, PodRanges, parse_address};

/// A scenario file.
#[derive(Clone, Debug)]
pub struct Case {
    /// Where it is.
    pub path: PathBuf,
    /// What it shows.
    pub sentence: String,
    /// Addresses of the node's interfaces.
    pub local: Vec<Ip>,
    /// Sizes of the maps.
    pub limits: Limits,
    /// `--masquerade-all`, `--masquerade-external`.
    pub masquerade: Masquerade,
    /// `--detect-local-mode`, as far as it is about ranges.
    pub pods: PodRanges,
    /// The complete lists at the start.
    pub objects: Vec<Object>,
    /// What happens, and what is compared, each with its line.
    pub sections: Vec<(usize, Section)>,
}

/// A part of the story.
#[derive(Clone, Debug)]
pub enum Section {
    /// Something happens.
    Then(Event),
    /// The rows are these.
    Rows(String),
    /// The problems are these.
    Problems(String),
    /// Packets meet this. Asked where the packet path is, in `tests/packet`.
    Packets(String),
}

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// Objects are new or different, in this order.
    Put(Vec<Object>),
    /// Objects are gone.
    Delete(Vec<(Kind, ObjectName)>),
    /// The node's interfaces have these addresses.
    Local(Vec<Ip>),
    /// Live flows use these frontend addresses.
    Flows(Vec<Ip>),
    /// Another agent takes over.
    Restart,
}

/// Why a file is not a scenario.
#[derive(Debug, thiserror::Error)]
#[error("{path}: line {line}: {what}")]
pub struct SyntaxError {
    /// The file.
    pub path: PathBuf,
    /// Line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// A section as it stands in the file.
struct Raw {
    line: usize,
    title: String,
    body: String,
}

impl Case {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, SyntaxError> {
        let error = |line, what: String| SyntaxError {
            path: path.to_owned(),
            line,
            what,
        };
        if path.extension().is_none_or(|extension| extension != "txt") {
            return Err(error(1, "a scenario file is called *.txt".to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(|reason| error(1, reason.to_string()))?;
        Self::parse(path, &text)
    }

    /// Reads a text.
    pub fn parse(path: &Path, text: &str) -> Result<Self, SyntaxError> {
        let error = |line, what: String| SyntaxError {
            path: path.to_owned(),
            line,
            what,
        };
        let (sentence, raws) = split(text);
        if !sentence.ends_with('.') || sentence.len() < 10 {
            return Err(error(1, "the first line is not a sentence".to_owned()));
        }
        let mut case = Self {
            path: path.to_owned(),
            sentence,
            local: ["192.0.2.1", "2001:db8:2::1"]
                .into_iter()
                .filter_map(parse_address)
                .collect(),
            limits: Limits::default(),
            masquerade: Masquerade::default(),
            pods: PodRanges::default(),
            objects: Vec::new(),
            sections: Vec::new(),
        };
        let mut has_objects = false;
        for raw in raws {
            let opening = matches!(
                raw.title.as_str(),
                "local" | "limits" | "masquerade" | "pods" | "objects"
            );
            if opening == has_objects {
                return Err(error(
                    raw.line,
                    format!("--- {} stands at the wrong place", raw.title),
                ));
            }
            has_objects |= raw.title == "objects";
            case.add(&raw).map_err(|what| error(raw.line, what))?;
        }
        let compared = matches!(
            case.sections.last(),
            Some((_, Section::Rows(_) | Section::Problems(_) | Section::Packets(_)))
        );
        let has_rows = case
            .sections
            .iter()
            .any(|(_, section)| matches!(section, Section::Rows(_)));
        if !compared || !has_rows {
            return Err(error(
                text.lines().count(),
                "what happens last is not compared with rows".to_owned(),
            ));
        }
        case.check_problems()
            .map_err(|line| error(line, "--- problems must follow --- rows".to_owned()))?;
        Ok(case)
    }

    fn check_problems(&self) -> Result<(), usize> {
        let mut before = None;
        for (line, section) in &self.sections {
            if matches!(section, Section::Problems(_)) && !matches!(before, Some(&Section::Rows(_))) {
                return Err(*line);
            }
            before = Some(section);
        }
        Ok(())
    }

    fn add(&mut self, raw: &Raw) -> Result<(), String> {
        let section = match raw.title.as_str() {
            "local" => {
                self.local = addresses(&raw.body)?;
                return Ok(());
            }
            "limits" => return self.add_limits(&raw.body),
            "masquerade" => return self.add_masquerade(&raw.body),
            "pods" => return self.add_pods(&raw.body),
            "objects" => {
                self.objects = objects(&raw.body)?;
                return Ok(());
            }
            "then put" => Section::Then(Event::Put(objects(&raw.body)?)),
            "then delete" => Section::Then(Event::Delete(names(&raw.body)?)),
            "then local" => Section::Then(Event::Local(addresses(&raw.body)?)),
            "then flows" => Section::Then(Event::Flows(addresses(&raw.body)?)),
            "then restart" if raw.body.is_empty() => Section::Then(Event::Restart),
            "rows" => Section::Rows(raw.body.clone()),
            "problems" => Section::Problems(raw.body.clone()),
            "packets" if !raw.body.is_empty() => Section::Packets(raw.body.clone()),
            other => return Err(format!("unknown section --- {other}")),
        };
        self.sections.push((raw.line, section));
        Ok(())
    }

    fn add_masquerade(&mut self, body: &str) -> Result<(), String> {
        for line in body.lines() {
            match line {
                "all" => self.masquerade.all = true,
                "external" => self.masquerade.external = true,
                _ => return Err(format!("{line} is neither all nor external")),
            }
        }
        Ok(())
    }

    /// The ranges of `ClusterCIDR`, or the mode `NodeCIDR`.
    fn add_pods(&mut self, body: &str) -> Result<(), String> {
        let lines: Vec<&str> = body.lines().collect();
        self.pods = match lines.as_slice() {
            ["NodeCIDR"] => PodRanges::OfNode,
            ranges => PodRanges::parse(ranges).map_err(|error| error.to_string())?,
        };
        Ok(())
    }

    fn add_limits(&mut self, body: &str) -> Result<(), String> {
        for line in body.lines() {
            let (name, number) = line.split_once(' ').ok_or("a limit is a map and a number")?;
            let number = number.parse().map_err(|_| format!("{number} is not a number"))?;
            match name {
                "ADDRESSES" => self.limits.addresses = number,
                "SERVICES" => self.limits.services = number,
                "BACKENDS" => self.limits.backends = number,
                "BACKEND_STATE" => self.limits.backend_states = number,
                "SERVICE_NAMES" => self.limits.service_ids = number,
                _ => return Err(format!("{name} has no limit")),
            }
        }
        Ok(())
    }
}

/// The first line, and the sections; `---` alone stays in the body, where it separates YAML documents.
fn split(text: &str) -> (String, Vec<Raw>) {
    let mut sections: Vec<Raw> = Vec::new();
    let mut lines = text.lines();
    let sentence = lines.next().unwrap_or_default().to_owned();
    for (line, content) in (2..).zip(lines) {
        if let Some(title) = content.strip_prefix("--- ") {
            sections.push(Raw {
                line,
                title: title.trim().to_owned(),
                body: String::new(),
            });
        } else if let Some(section) = sections.last_mut() {
            section.body.push_str(content);
            section.body.push('\n');
        } else if !content.trim().is_empty() {
            sections.push(Raw {
                line,
                title: format!("(none before {content:?})"),
                body: String::new(),
            });
        }
    }
    for section in &mut sections {
        section.body.truncate(section.body.trim_end().len());
    }
    (sentence, sections)
}

fn objects(body: &str) -> Result<Vec<Object>, String> {
    let mut objects = Vec::new();
    for document in body.split("\n---\n") {
        let value: serde_json::Value = serde_saphyr::from_str(document).map_err(|error| error.to_string())?;
        let object = Object::from_value(value).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}: {}", source.unwrap_or_default())
        })?;
        objects.push(object.ok_or("a kind that weir does not use")?);
    }
    Ok(objects)
}

fn names(body: &str) -> Result<Vec<(Kind, ObjectName)>, String> {
    let name = |line: &str| {
        let (kind, name) = line.split_once(' ')?;
        let kind = Kind::ALL.into_iter().find(|known| known.to_string() == kind)?;
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        Some((kind, ObjectName::new(namespace, name)))
    };
    body.lines()
        .map(|line| name(line).ok_or_else(|| format!("{line:?} is not a kind and a name")))
        .collect()
}

fn addresses(body: &str) -> Result<Vec<Ip>, String> {
    body.lines()
        .map(|line| parse_address(line).ok_or_else(|| format!("{line:?} is not an address")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Case, String> {
        Case::parse(Path::new("x.txt"), text).map_err(|error| error.to_string())
    }

    const SERVICE: &str = "A sentence.\n--- objects\napiVersion: v1\nkind: Service\nmetadata: {name: web}\n";

    #[test]
    fn a_file_in_which_nothing_is_compared_is_an_error() {
        assert!(parse(&format!("{SERVICE}--- rows\n")).is_ok());
        for wrong in [
            SERVICE.to_owned(),
            format!("{SERVICE}--- problems\nx\n"),
            format!("{SERVICE}--- row\n"),
            format!("{SERVICE}--- rows\n--- then restart\n"),
            format!("{SERVICE}--- rows\n--- local\n192.0.2.1\n"),
            format!("{SERVICE}--- rows\n--- then restart\n--- problems\n"),
            format!("{SERVICE}--- rows\n--- packets\n"),
            format!("{SERVICE}--- packets\npod 10.0.0.1 tcp 10.96.0.1:80 = rejected\n"),
            format!("{SERVICE}--- then explode\n--- rows\n"),
            format!("no sentence\n{SERVICE}--- rows\n"),
            "A sentence.\nstray\n--- objects\n--- rows\n".to_owned(),
        ] {
            assert!(parse(&wrong).is_err(), "{wrong}");
        }
    }
}
