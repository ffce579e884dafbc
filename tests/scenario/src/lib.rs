//! Scenario files: what a Service should look like in the kernel, as text that a maintainer reads without Rust.
//!
//! ```text
//! An endpoint that is not ready gets no connections.      the first line is a sentence
//! --- objects                                             the complete lists at the start, as YAML documents
//! --- then put | then delete | then local | then flows    what happens next, in order
//! --- then restart                                        the agent ends, and another adopts the rows
//! --- rows                                                what the maps hold now, for people
//! --- problems                                            what an operator is told; without it, nothing
//! --- packets                                             what packets meet then (asked in `tests/packet`)
//! ```
//!
//! Also, before `objects`: `--- local` (the addresses of the node's interfaces) and `--- limits` (small maps). The node
//! is called `node-a`. A file runs on any [`Kernel`]: the fake one here, with and without failures, and the real one.

pub mod case;
pub mod driver;
pub mod fake;
pub mod promises;
pub mod render;

use std::path::{Path, PathBuf};

pub use case::{Case, Event, Section, SyntaxError};
pub use driver::Driver;
pub use fake::FakeKernel;
use proxy_model::{Adopted, Step};

/// Where steps go and rows are read back.
pub trait Kernel {
    /// Carries out one step.
    fn apply(&mut self, step: &Step) -> Result<(), String>;
    /// All rows, as an agent that starts reads them.
    fn rows(&mut self) -> Result<Adopted, String>;
}

/// Why a case failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The file is not a scenario.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// The rows are not what the file says.
    #[error(
        "{path}: line {line}: the {what} differ\n--- the file says\n{expected}\n--- the maps say\n{found}"
    )]
    Differs {
        /// The file.
        path: PathBuf,
        /// Line of the section.
        line: usize,
        /// `rows` or `problems`.
        what: &'static str,
        /// What the file says.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The target did not do what every target must.
    #[error("{path}: {what}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        what: String,
    },
}

/// The scenario files of this crate, in the order of their names.
pub fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// Runs a case on a kernel whose maps are empty.
pub fn run(case: &Case, kernel: &mut dyn Kernel) -> Result<(), Failure> {
    run_with(case, kernel, &mut |found| check(case, found))
}

/// What a `rows` or `problems` section is compared with.
#[derive(Debug)]
pub struct Found {
    /// Position of the section in the case.
    pub section: usize,
    /// `rows` or `problems`.
    pub what: &'static str,
    /// What is there.
    pub text: String,
}

/// Runs a case and hands what is found to `compare`.
pub fn run_with(
    case: &Case,
    kernel: &mut dyn Kernel,
    compare: &mut dyn FnMut(Found) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let broken = |what: String| Failure::Broken {
        path: case.path.clone(),
        what,
    };
    let mut driver = Driver::of(case, kernel).map_err(broken)?;
    driver.start(&case.objects, &case.local);
    driver.settle(kernel).map_err(broken)?;
    for (position, (_, section)) in case.sections.iter().enumerate() {
        match section {
            Section::Then(event) => {
                if matches!(event, Event::Restart) {
                    driver.check_restart(kernel).map_err(broken)?;
                }
                driver.happen(event, kernel).map_err(broken)?;
                driver.settle(kernel).map_err(broken)?;
            }
            Section::Rows(_) => {
                let text = render::rows(&kernel.rows().map_err(broken)?);
                compare(Found {
                    section: position,
                    what: "rows",
                    text,
                })?;
                // Without a section of their own, there must be no problems.
                if !matches!(case.sections.get(position + 1), Some((_, Section::Problems(_)))) {
                    compare(Found {
                        section: position,
                        what: "problems",
                        text: driver.problems(),
                    })?;
                }
            }
            Section::Packets(_) => {}
            Section::Problems(_) => {
                compare(Found {
                    section: position,
                    what: "problems",
                    text: driver.problems(),
                })?;
            }
        }
    }
    driver.check_restart(kernel).map_err(broken)
}

fn check(case: &Case, found: Found) -> Result<(), Failure> {
    let Found { section, what, text } = found;
    let Some((line, section)) = case.sections.get(section) else {
        return Ok(());
    };
    let expected = match (section, what) {
        (Section::Rows(rows), "rows") => rows.as_str(),
        (Section::Problems(problems), _) => problems.as_str(),
        _ => "",
    };
    if expected == text {
        return Ok(());
    }
    Err(Failure::Differs {
        path: case.path.clone(),
        line: *line,
        what,
        expected: expected.to_owned(),
        found: text,
    })
}
