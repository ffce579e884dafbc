//! Counts what cargo's test harness reports.

use std::fmt;

/// Results of a run of tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Ignored by an attribute, or passed after saying `SKIP: why`.
    pub(crate) skipped: u64,
}

impl Count {
    /// Reads the `test result:` lines of `output`.
    ///
    /// A test cannot tell the harness that it skipped itself: it says so in a line `SKIP: why`, and counts as passed.
    pub(crate) fn read(output: &str) -> Self {
        let mut count = Self::default();
        for line in output.lines() {
            if let Some(result) = line.trim_start().strip_prefix("test result:") {
                count.passed += number_before(result, " passed");
                count.failed += number_before(result, " failed");
                count.skipped += number_before(result, " ignored");
            }
        }
        let told = u64::try_from(output.matches("SKIP: ").count())
            .unwrap_or(0)
            .min(count.passed);
        Self {
            passed: count.passed - told,
            skipped: count.skipped + told,
            ..count
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    pub(crate) fn total(self) -> u64 {
        self.passed + self.failed + self.skipped
    }
}

impl fmt::Display for Count {
    /// The line that pipelines look for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

fn number_before(text: &str, word: &str) -> u64 {
    let before = text.split(word).next().unwrap_or_default();
    let digits = before
        .rsplit(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap_or_default();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        "test result: ok. 12 passed; 1 failed; 2 ignored; 0 measured; 7 filtered out; finished in 0.01s\n";

    #[test]
    fn every_binary_adds_up() {
        let output = format!("running 15 tests\n{LINE}\n   Doc-tests x\n\n{LINE}");
        assert_eq!(
            Count::read(&output),
            Count {
                passed: 24,
                failed: 2,
                skipped: 4
            }
        );
    }

    #[test]
    fn a_test_that_skipped_itself_did_not_pass() {
        let output = format!("test a ... SKIP: this needs root\nok\n{LINE}");
        assert_eq!(
            Count::read(&output),
            Count {
                passed: 11,
                failed: 1,
                skipped: 3
            }
        );
    }

    #[test]
    fn no_result_is_no_test() {
        assert_eq!(Count::read("error: could not compile `x`").total(), 0);
    }
}
