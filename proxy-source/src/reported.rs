//! Says what is wrong once, again when it changes, and once more when it is over.

use std::collections::BTreeSet;

/// The sentences that have been logged and still hold.
#[derive(Debug, Default)]
pub struct Reported {
    open: BTreeSet<String>,
}

impl Reported {
    /// `now` is all that is wrong: what is new is logged as a warning, what is no longer so as settled.
    pub fn replace(&mut self, now: BTreeSet<String>) {
        let (new, settled) = self.difference(&now);
        for sentence in settled {
            tracing::info!("settled: {sentence}");
        }
        for sentence in new {
            tracing::warn!("{sentence}");
        }
        self.open = now;
    }

    /// All that is wrong.
    pub fn open(&self) -> &BTreeSet<String> {
        &self.open
    }

    /// How much is wrong.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn difference<'s>(&'s self, now: &'s BTreeSet<String>) -> (Vec<&'s String>, Vec<&'s String>) {
        (
            now.difference(&self.open).collect(),
            self.open.difference(now).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_new_once_and_settled_once() {
        let set = |words: &[&str]| words.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let mut reported = Reported::default();
        assert_eq!(reported.difference(&set(&["a"])).0, ["a"]);
        reported.replace(set(&["a"]));
        assert_eq!(reported.difference(&set(&["a"])).0.len(), 0);
        let now = set(&["b"]);
        assert_eq!(
            reported.difference(&now),
            (vec![&"b".to_owned()], vec![&"a".to_owned()])
        );
    }
}
