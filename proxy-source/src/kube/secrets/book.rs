//! Which Secrets are to be asked for, and when: pure.
//!
//! What lists and watches say is only a reason to look: what the API server answers to `get` is never older than what it
//! told before. Each name has one question at a time, so the last answer is the newest; news that come meanwhile are
//! looked after by another question.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proxy_model::api::ApiSecret;
use proxy_model::{Change, Kind, Object, ObjectName};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::watch::Scope;

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What a list or a watch tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Look {
    /// A list begins.
    Begin,
    /// It is there, in this version.
    There(ObjectName, String),
    /// It is gone.
    Gone(ObjectName),
    /// The list is complete.
    End,
}

/// What became of a question.
#[derive(Debug)]
pub(super) enum Answer {
    /// It is there, in this version.
    Found(Box<ApiSecret>, String),
    /// It is not there.
    Missing,
    /// It is there in this version, and cannot be decoded.
    Unusable(String),
    /// Nobody knows.
    Failed,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Ask for this one, by this number.
    Ask(ObjectName, u64),
    /// Nothing before then.
    Wait(Duration),
    /// Nothing until something is told.
    Idle,
}

/// All that are wanted.
pub(super) struct Book {
    /// Where changes are told of.
    scopes: Vec<Scope>,
    wanted: BTreeMap<ObjectName, Entry>,
    /// When each is to be asked for.
    due: BTreeSet<(Duration, ObjectName)>,
    questions: u64,
    jitter: SmallRng,
}

#[derive(Default)]
struct Entry {
    /// The question that has no answer yet.
    asked: Option<u64>,
    /// When the next one is due.
    due: Option<Duration>,
    /// What was told since the question was asked.
    told: Option<State>,
    /// What was answered.
    known: Option<State>,
    /// Questions without an answer, one after the other.
    failed: u32,
    /// Whether the list that is being read has it.
    listed: bool,
}

impl Entry {
    /// Nobody can be asked for it.
    fn unknown() -> Self {
        Self {
            known: Some(State::Gone),
            ..Self::default()
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
enum State {
    There(String),
    Gone,
}

impl Book {
    pub(super) fn new(scopes: Vec<Scope>, seed: u64) -> Self {
        Self {
            scopes,
            wanted: BTreeMap::new(),
            due: BTreeSet::new(),
            questions: 0,
            jitter: SmallRng::seed_from_u64(seed),
        }
    }

    /// These are wanted now. Returns those that are new and that nobody can be asked for.
    pub(super) fn want(&mut self, names: &BTreeSet<ObjectName>, now: Duration) -> Vec<ObjectName> {
        let left: Vec<ObjectName> = self
            .wanted
            .keys()
            .filter(|name| !names.contains(name))
            .cloned()
            .collect();
        for name in left {
            if let Some(due) = self.wanted.remove(&name).and_then(|entry| entry.due) {
                self.due.remove(&(due, name));
            }
        }
        let mut unknown = Vec::new();
        for name in names {
            if self.wanted.contains_key(name) {
                continue;
            }
            self.wanted.insert(name.clone(), Entry::default());
            if name.is_dns(Kind::Secret) && self.scopes.iter().any(|scope| scope.has(name)) {
                self.set_due(name, now);
            } else {
                self.wanted.insert(name.clone(), Entry::unknown());
                unknown.push(name.clone());
            }
        }
        unknown
    }

    /// Something was told of one of the scopes.
    pub(super) fn hear(&mut self, place: usize, look: Look, now: Duration) {
        match look {
            Look::Begin => self.each_in(place, |entry| entry.listed = false),
            Look::There(name, version) => self.told(&name, State::There(version), now),
            Look::Gone(name) => self.told(&name, State::Gone, now),
            Look::End => {
                let mut missed = Vec::new();
                for (name, entry) in &self.wanted {
                    if !entry.listed && self.scopes.get(place).is_some_and(|scope| scope.has(name)) {
                        missed.push(name.clone());
                    }
                }
                for name in missed {
                    self.told(&name, State::Gone, now);
                }
            }
        }
    }

    fn each_in(&mut self, place: usize, change: impl Fn(&mut Entry)) {
        let Some(scope) = self.scopes.get(place) else {
            return;
        };
        let inside = self.wanted.iter_mut().filter(|(name, _)| scope.has(name));
        inside.for_each(|(_, entry)| change(entry));
    }

    fn told(&mut self, name: &ObjectName, state: State, now: Duration) {
        let Some(entry) = self.wanted.get_mut(name) else {
            return;
        };
        entry.listed = state != State::Gone;
        if entry.asked.is_some() {
            entry.told = Some(state);
        } else if entry.known.as_ref() != Some(&state) && entry.due.is_none() {
            self.set_due(name, now);
        }
    }

    fn set_due(&mut self, name: &ObjectName, at: Duration) {
        if let Some(entry) = self.wanted.get_mut(name) {
            entry.due = Some(at);
            self.due.insert((at, name.clone()));
        }
    }

    /// What to do now.
    pub(super) fn next(&mut self, now: Duration) -> Next {
        match self.due.first() {
            None => return Next::Idle,
            Some((at, _)) if *at > now => return Next::Wait(*at),
            Some(_) => {}
        }
        let Some((_, name)) = self.due.pop_first() else {
            return Next::Idle;
        };
        self.questions += 1;
        if let Some(entry) = self.wanted.get_mut(&name) {
            entry.due = None;
            entry.told = None;
            entry.asked = Some(self.questions);
        }
        Next::Ask(name, self.questions)
    }

    /// A question was answered. Returns what is to be passed on.
    pub(super) fn answered(
        &mut self,
        (name, question): (&ObjectName, u64),
        answer: Answer,
        now: Duration,
    ) -> Option<Change> {
        let entry = self
            .wanted
            .get_mut(name)
            .filter(|entry| entry.asked == Some(question))?;
        entry.asked = None;
        let told = entry.told.take();
        let (state, change) = match answer {
            Answer::Failed => {
                let factor = 2_u32.saturating_pow(entry.failed.min(16));
                entry.failed += 1;
                let wait = FIRST_WAIT.saturating_mul(factor).min(LONGEST_WAIT);
                let at = now + wait.mul_f64(self.jitter.random_range(0.5..1.0));
                self.set_due(name, at);
                return None;
            }
            Answer::Missing => (State::Gone, Some(Change::Delete(Kind::Secret, name.clone()))),
            Answer::Found(secret, version) => {
                let put = Change::Put(Object::Secret(*secret));
                (State::There(version), Some(put))
            }
            // What is known stays; who knows nothing must hear something.
            Answer::Unusable(version) => {
                let first = entry.known.is_none();
                let delete = first.then(|| Change::Delete(Kind::Secret, name.clone()));
                (State::There(version), delete)
            }
        };
        entry.failed = 0;
        let overtaken = told.is_some_and(|told| told != state);
        let changed = entry.known.as_ref() != Some(&state);
        entry.known = Some(state);
        if overtaken {
            self.set_due(name, now);
        }
        change.filter(|_| changed)
    }
}

#[cfg(test)]
mod tests;
