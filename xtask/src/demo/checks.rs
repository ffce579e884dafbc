//! What the demo claims, and whether it is so.

use anyhow::{Result, bail};

use super::screen::{Screen, Style};

/// The claims so far.
#[derive(Default)]
pub(super) struct Checks {
    passed: usize,
    failed: Vec<String>,
}

impl Checks {
    /// Notes a claim; the mark to show beside it.
    pub(super) fn note(&mut self, holds: bool, claim: &str) -> Mark {
        if holds {
            self.passed += 1;
        } else {
            self.failed.push(claim.to_owned());
        }
        Mark(holds)
    }

    /// The last lines of the demo; an error if a claim was wrong.
    pub(super) fn verdict(&self, screen: &mut Screen) -> Result<()> {
        let all = self.passed + self.failed.len();
        screen.blank();
        if self.failed.is_empty() {
            let text = format!("all {all} checks hold");
            let text = screen.paint(Style::Good, &text);
            screen.line(&text);
            return Ok(());
        }
        for claim in &self.failed {
            let text = screen.paint(Style::Bad, &format!("not so: {claim}"));
            screen.line(&text);
        }
        bail!("{} of {all} checks of the demo failed", self.failed.len())
    }
}

/// Whether a claim holds.
#[derive(Clone, Copy)]
pub(super) struct Mark(bool);

impl Mark {
    /// A tick or a cross.
    pub(super) fn show(self, screen: &Screen) -> String {
        screen.mark(self.0)
    }
}
