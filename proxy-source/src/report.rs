//! Says what is wrong once, again when it changes, and once more when it is over: in the log, to whoever tells the owners
//! of the objects, and to whoever asks.

use std::collections::BTreeSet;

use tokio::sync::watch;

use crate::{Problems, Reported};

/// All that is wrong, each in a sentence.
pub type Sentences = BTreeSet<String>;

/// Where the loop says what is wrong.
#[derive(Debug)]
pub struct Report {
    log: Reported,
    objects: watch::Sender<Problems>,
    all: watch::Sender<Sentences>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            log: Reported::default(),
            objects: watch::channel(Problems::new()).0,
            all: watch::channel(Sentences::new()).0,
        }
    }
}

impl Report {
    /// What is wrong with objects, whenever it changes.
    pub fn problems(&self) -> watch::Receiver<Problems> {
        self.objects.subscribe()
    }

    /// What is wrong at all.
    pub fn sentences(&self) -> watch::Receiver<Sentences> {
        self.all.subscribe()
    }

    /// This is all that is wrong: with objects, and otherwise.
    pub fn replace(&mut self, objects: Problems, others: impl Iterator<Item = String>) {
        let sentences = objects.iter().map(ToString::to_string);
        self.log.replace(sentences.chain(others).collect());
        self.all.send_replace(self.log.open().clone());
        replace(&self.objects, objects);
    }

    /// How much is wrong.
    pub fn len(&self) -> usize {
        self.log.len()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.log.is_empty()
    }
}

/// Puts a value in the place of the one that is there; who listens hears of it only if it is another one.
pub fn replace<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|known| {
        let different = *known != value;
        *known = value;
        different
    });
}

#[cfg(test)]
mod tests {
    use proxy_model::{Kind, ObjectName, Problem};

    use super::*;

    #[test]
    fn what_is_wrong_with_objects_is_passed_on_when_it_changes() {
        let mut report = Report::default();
        let mut problems = report.problems();
        let problem = Problem::new(Kind::Service, &ObjectName::new("shop", "web"), "is odd: mend it");
        report.replace(
            vec![problem.clone()],
            ["interface eth0: down".to_owned()].into_iter(),
        );
        assert_eq!((report.len(), report.is_empty()), (2, false));
        assert!(problems.has_changed().unwrap());
        assert_eq!(*problems.borrow_and_update(), std::slice::from_ref(&problem));
        report.replace(vec![problem], std::iter::empty());
        assert!(
            !problems.has_changed().unwrap(),
            "only the interface is well again"
        );
        report.replace(Vec::new(), std::iter::empty());
        assert!(problems.has_changed().unwrap() && report.is_empty());
    }
}
