//! `tests/cluster/results/PROXY.txt`: what became of every spec of the group in the last run that was kept.
//!
//! ```text
//! # Kubernetes v1.36.3, Linux 6.18, 3 nodes        where it ran
//! # at 0123456789ab, image 0123456789abcdef        what ran
//! # part at ba9876543210, image fedcba9876543210   and later a part of it, for each
//! passed | spec
//! passed* | spec, in the last run of a part
//! declined | spec | why
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, bail, ensure};

use super::focus::Focus;
use super::report::{Outcome, Report, Spec};
use crate::cluster::{E2ePlace, Proxy, kubernetes_version};
use crate::{shell, workspace};

/// What is written besides while results are kept, and says nothing of what ran.
const WRITTEN: [&str; 2] = [":!tests/cluster/results", ":!docs/parity.md"];

/// The results of one proxy.
#[derive(Default, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    /// Where it ran, in words. Only what ran in the same place can be compared.
    pub(crate) about: String,
    /// What ran: the work tree's commit, and weir's image.
    pub(crate) at: String,
    /// The same for each later run of a part.
    pub(crate) parts: Vec<String>,
    pub(crate) specs: BTreeMap<String, Outcome>,
    /// Those whose outcome is of a later run of a part.
    pub(crate) later: BTreeSet<String>,
}

/// Its file, in the tree.
fn path(proxy: Proxy) -> String {
    format!("tests/cluster/results/{}.txt", proxy.name())
}

/// A run whose results are to be kept. What would be in the way of that is found before the run, which takes long.
pub(super) struct Keeper {
    proxy: Proxy,
    about: String,
    at: String,
    /// What the run adds to, if it is of a part.
    whole: Option<Record>,
}

impl Keeper {
    /// For a run in this cluster.
    pub(super) fn new(proxy: Proxy, focus: &Focus, kept: Option<&Record>, place: &E2ePlace) -> Result<Self> {
        let about = format!(
            "Kubernetes {}, Linux {}, {} nodes",
            kubernetes_version()?,
            kernel(),
            place.nodes
        );
        let at = match &place.image {
            Some(image) => format!("{}, image {image}", commit()?),
            None => commit()?,
        };
        let whole = if focus.is_whole() {
            None
        } else {
            let whole = kept
                .context("there are no results of the whole group to which those of a part could be added")?;
            whole.is_from(&about)?;
            Some(whole.clone())
        };
        Ok(Self {
            proxy,
            about,
            at,
            whole,
        })
    }

    /// Writes what became of the group's specs; of a part of them, those that ran take the place of what was kept before.
    pub(super) fn write(self, report: &Report) -> Result<()> {
        if !report.broken.is_empty() {
            bail!("the results are not kept: the run proves nothing");
        }
        let record = match self.whole {
            None => Record::of_whole(self.about, self.at, &report.specs),
            Some(mut whole) => {
                whole.add_part(self.at, &report.specs);
                whole
            }
        };
        let path = path(self.proxy);
        let whole = workspace::root().join(&path);
        if let Some(folder) = whole.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&whole, record.render()).with_context(|| format!("cannot write {path}"))?;
        eprintln!("x: wrote {path}: `./x docs` brings it to docs/parity.md");
        Ok(())
    }
}

/// `6.18`, of `6.18.2-something`.
fn kernel() -> String {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy().into_owned();
    let mut parts = release.split(['.', '-']);
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{major}.{minor}")
}

/// `0123456789ab`, and `-dirty` if the work tree has more than that.
fn commit() -> Result<String> {
    let git = |args: &[&str]| {
        shell::output(&mut shell::command("git", args))
            .context("--record keeps the work tree's commit with the results")
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changes = git(&[&["status", "--porcelain", "--", "."][..], &WRITTEN].concat())?;
    let dirty = if changes.is_empty() { "" } else { "-dirty" };
    Ok(format!("{commit}{dirty}"))
}

fn group(specs: &[Spec]) -> impl Iterator<Item = &Spec> {
    specs.iter().filter(|spec| spec.name.contains(super::GROUP))
}

impl Record {
    /// What the tree has of this proxy.
    pub(crate) fn read(proxy: Proxy) -> Result<Self> {
        let path = path(proxy);
        Self::parse(&workspace::read(&path)?).with_context(|| format!("reading {path}"))
    }

    /// The same; `None` if nothing was kept yet.
    pub(super) fn find(proxy: Proxy) -> Result<Option<Self>> {
        let exists = workspace::root().join(path(proxy)).exists();
        exists.then(|| Self::read(proxy)).transpose()
    }

    /// The specs that passed.
    pub(crate) fn passed(&self) -> impl Iterator<Item = &str> {
        let passed = self
            .specs
            .iter()
            .filter(|(_, outcome)| **outcome == Outcome::Passed);
        passed.map(|(name, _)| name.as_str())
    }

    /// Results of all of the group: nothing of what was kept before stays.
    fn of_whole(about: String, at: String, specs: &[Spec]) -> Self {
        let specs = group(specs).map(|spec| (spec.name.clone(), spec.outcome.clone()));
        Self {
            about,
            at,
            specs: specs.collect(),
            ..Self::default()
        }
    }

    /// An error if it is from elsewhere: what is side by side was seen in the same place.
    fn is_from(&self, about: &str) -> Result<()> {
        ensure!(
            self.about == about,
            "the results of a part cannot be kept: those of the whole group are from {}, and this is {about}; \
             `./x test e2e --record` without --focus begins anew",
            self.about
        );
        Ok(())
    }

    /// Those specs that ran take the place of what was kept before.
    fn add_part(&mut self, at: String, specs: &[Spec]) {
        for spec in group(specs).filter(|spec| spec.outcome.ran()) {
            self.specs.insert(spec.name.clone(), spec.outcome.clone());
            self.later.insert(spec.name.clone());
        }
        if !self.parts.contains(&at) {
            self.parts.push(at);
        }
    }

    fn render(&self) -> String {
        let mut text = format!("# {}\n# at {}\n", self.about, self.at);
        for part in &self.parts {
            // A `String` takes everything.
            let _ = writeln!(text, "# part at {part}");
        }
        for (spec, outcome) in &self.specs {
            let (word, says) = match outcome {
                Outcome::Passed => ("passed", ""),
                // Why is told by expected.toml: what it says has times and addresses in it.
                Outcome::Failed(_) => ("failed", ""),
                Outcome::Declined(says) => ("declined", says.lines().next().unwrap_or_default()),
                Outcome::Pending => ("pending", ""),
                Outcome::LeftOut => ("left out", ""),
            };
            let mark = if self.later.contains(spec) { "*" } else { "" };
            let line = if says.is_empty() {
                format!("{word}{mark} | {spec}")
            } else {
                format!("{word}{mark} | {spec} | {says}")
            };
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }

    fn parse(text: &str) -> Result<Self> {
        let mut head = text.lines().map_while(|line| line.strip_prefix("# "));
        let about = head.next().context("it does not begin with a line `# ...`")?;
        let at = head.next().and_then(|line| line.strip_prefix("at "));
        let mut record = Self {
            about: about.to_owned(),
            at: at.context("its second line is not `# at ...`")?.to_owned(),
            ..Self::default()
        };
        for line in head {
            let part = line.strip_prefix("part at ");
            let part = part.with_context(|| format!("not a part: # {line}"))?;
            record.parts.push(part.to_owned());
        }
        for line in text.lines().skip(2 + record.parts.len()) {
            let (spec, outcome, is_later) = row(line).with_context(|| format!("not a result: {line}"))?;
            if is_later {
                record.later.insert(spec.clone());
            }
            record.specs.insert(spec, outcome);
        }
        Ok(record)
    }
}

/// A spec, what became of it, and whether that is of a later run.
fn row(line: &str) -> Option<(String, Outcome, bool)> {
    let mut fields = line.split(" | ");
    let (word, spec) = (fields.next()?, fields.next()?);
    let says = fields.next().unwrap_or_default().to_owned();
    let (word, is_later) = word.strip_suffix('*').map_or((word, false), |word| (word, true));
    let outcome = match word {
        "passed" => Outcome::Passed,
        "failed" => Outcome::Failed(says),
        "declined" => Outcome::Declined(says),
        "pending" => Outcome::Pending,
        "left out" => Outcome::LeftOut,
        _ => return None,
    };
    Some((spec.to_owned(), outcome, is_later))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::e2e::Scope;

    fn spec(name: &str, outcome: Outcome) -> Spec {
        Spec {
            name: format!("[sig-network] {name}"),
            outcome,
            took: Duration::ZERO,
        }
    }

    fn whole(specs: &[Spec]) -> Record {
        Record::of_whole("Kubernetes v1".to_owned(), "abc".to_owned(), specs)
    }

    #[test]
    fn what_is_written_is_read() {
        let mut record = whole(&[
            spec("a", Outcome::Passed),
            spec("b", Outcome::Declined("no cloud".to_owned())),
            spec("c", Outcome::LeftOut),
            spec("d", Outcome::Failed(String::new())),
            spec("e", Outcome::Pending),
        ]);
        assert_eq!(Record::parse(&record.render()).unwrap(), record);
        let part = [spec("d", Outcome::Passed)];
        record.add_part("def".to_owned(), &part);
        record.add_part("012".to_owned(), &part);
        let text = record.render();
        assert!(
            text.starts_with("# Kubernetes v1\n# at abc\n# part at def\n# part at 012\n"),
            "{text}"
        );
        assert!(text.contains("\npassed* | [sig-network] d\n"), "{text}");
        assert_eq!(Record::parse(&text).unwrap(), record);
    }

    #[test]
    fn a_part_leaves_the_rest_as_it_was() {
        let all = [
            spec("a", Outcome::Passed),
            spec("b", Outcome::Failed(String::new())),
        ];
        let mut record = whole(&all);
        let part = [spec("a", Outcome::LeftOut), spec("b", Outcome::Passed)];
        record.add_part("def".to_owned(), &part);
        assert_eq!(record.passed().count(), 2);
        assert_eq!(record.later.iter().collect::<Vec<_>>(), ["[sig-network] b"]);
    }

    #[test]
    fn a_part_from_elsewhere_is_refused() {
        let place = |nodes| E2ePlace {
            netns: "/n".into(),
            api_server: ([127, 0, 0, 1], 1).into(),
            kubeconfig: "/k".into(),
            nodes,
            image: None,
        };
        let part = Focus::new(Some("a"), Scope::Everything).unwrap();
        let keeper = |kept: Option<&Record>, nodes| Keeper::new(Proxy::Weir, &part, kept, &place(nodes));
        assert!(keeper(None, 3).is_err());
        let about = keeper(Some(&whole(&[])), 3).err().unwrap().to_string();
        let about = about
            .split("this is ")
            .nth(1)
            .unwrap()
            .split("; ")
            .next()
            .unwrap();
        let kept = Record::of_whole(about.to_owned(), "abc".to_owned(), &[]);
        assert!(keeper(Some(&kept), 3).is_ok());
        assert!(keeper(Some(&kept), 6).is_err());
        let all = Focus::new(None, Scope::Everything).unwrap();
        assert!(
            Keeper::new(Proxy::Weir, &all, None, &place(6))
                .unwrap()
                .whole
                .is_none()
        );
    }

    #[test]
    fn an_unknown_word_is_an_error() {
        assert!(Record::parse("# a\n# at b\npassed | c\n").is_ok());
        assert!(Record::parse("# a\n# at b\nmaybe | c\n").is_err());
        assert!(Record::parse("# a\n# at b\n# parts of c\n").is_err());
        assert!(Record::parse("# a\npassed | c\n").is_err());
        assert!(Record::parse("").is_err());
    }
}
