//! Which Events are to be written, and when: pure.
//!
//! ```text
//!  a problem is new ────────────────▶ create            (409: it was told before this agent began, or by another node)
//!  it settles, and comes back ──────▶ count one more in the series, at most every 5 min
//!  it lasts ────────────────────────▶ create again after an hour: the API server forgets Events after that
//! ```
//!
//! The name of an Event follows from what it says, so nothing has to be read, or remembered over a restart, to say
//! nothing twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proxy_model::{Kind, Problem};

/// The API server keeps Events for so long (`--event-ttl`).
const KEPT: Duration = Duration::from_secs(3600);
/// Between two counts in one series.
const SERIES_PAUSE: Duration = Duration::from_secs(300);
/// At once,
const BURST: u32 = 25;
/// and then one after the other.
const PER: Duration = Duration::from_secs(5);
/// First wait after an API server did not answer; doubles.
const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Problems that are remembered; others are in the log only.
const MOST: usize = 1000;
/// And of one object.
const MOST_OF_ONE: usize = 25;
/// Bytes of a note that the API takes.
const NOTE: usize = 1024;

/// What has been told.
#[derive(Debug)]
pub(super) struct Told {
    node: String,
    entries: BTreeMap<String, Entry>,
    /// When the budget is whole again.
    whole: Duration,
    /// Nothing is said before.
    pause: Duration,
    wait: Duration,
}

#[derive(Debug)]
struct Entry {
    problem: Problem,
    note: String,
    /// Whether the problem is there now.
    open: bool,
    /// How often it came, as far as this agent knows.
    count: i32,
    /// When the server had it last.
    told: Option<Duration>,
    /// When something is to be said about it.
    due: Option<Duration>,
}

/// An Event to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Saying {
    /// Name of the Event.
    pub(super) name: String,
    /// What it is about.
    pub(super) problem: Problem,
    /// The text.
    pub(super) note: String,
    /// How often it came; more than once is a series.
    pub(super) count: i32,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Write this.
    Say(Box<Saying>),
    /// Nothing before then.
    Wait(Duration),
    /// Nothing until problems change.
    Idle,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// The server has it, or will never take it.
    Settled,
    /// The server has forgotten the Event of a series.
    Forgotten,
    /// No server took it.
    Unheard,
}

impl Told {
    pub(super) fn new(node: String) -> Self {
        Self {
            node,
            entries: BTreeMap::new(),
            whole: Duration::ZERO,
            pause: Duration::ZERO,
            wait: FIRST_WAIT,
        }
    }

    /// This is all that is wrong now.
    pub(super) fn learn(&mut self, problems: &[Problem], now: Duration) {
        let mut there = BTreeSet::new();
        for problem in problems {
            let note = note(problem, &self.node);
            let name = name(problem, &note);
            there.insert(name.clone());
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.reopen(now);
            } else if self.has_room_for(problem) {
                let entry = Entry {
                    problem: problem.clone(),
                    note,
                    open: true,
                    count: 1,
                    told: None,
                    due: Some(now),
                };
                self.entries.insert(name, entry);
            }
        }
        self.entries.retain(|name, entry| {
            if !there.contains(name) {
                entry.open = false;
                entry.due = None;
            }
            entry.open || entry.is_fresh(now)
        });
    }

    fn has_room_for(&self, problem: &Problem) -> bool {
        let entries = self.entries.values();
        let of_one = entries.filter(|entry| entry.problem.object == problem.object);
        self.entries.len() < MOST && of_one.count() < MOST_OF_ONE
    }

    /// What to do now.
    pub(super) fn next(&self, now: Duration) -> Next {
        let due = self
            .entries
            .iter()
            .filter_map(|(name, entry)| Some((entry.due?, name, entry)));
        let Some((due, name, entry)) = due.min_by_key(|(due, name, _)| (*due, *name)) else {
            return Next::Idle;
        };
        let affordable = self.whole.saturating_sub(PER * (BURST - 1));
        let at = due.max(self.pause).max(affordable);
        if at > now {
            return Next::Wait(at);
        }
        // Of what the server has forgotten there is nothing to go on with.
        let count = if entry.is_fresh(now) { entry.count } else { 1 };
        Next::Say(Box::new(Saying {
            name: name.clone(),
            problem: entry.problem.clone(),
            note: entry.note.clone(),
            count,
        }))
    }

    /// It was tried.
    pub(super) fn said(&mut self, saying: &Saying, outcome: Outcome, now: Duration) {
        self.whole = self.whole.max(now) + PER;
        if outcome == Outcome::Unheard {
            self.pause = now + self.wait;
            self.wait = (self.wait * 2).min(LONGEST_WAIT);
            return;
        }
        self.wait = FIRST_WAIT;
        let Some(entry) = self.entries.get_mut(&saying.name) else {
            return;
        };
        entry.count = saying.count;
        match outcome {
            Outcome::Settled => {
                entry.told = Some(now);
                entry.due = Some(now + KEPT + spread(&saying.name));
            }
            Outcome::Forgotten | Outcome::Unheard => {
                entry.told = None;
                entry.count = 1;
            }
        }
    }
}

impl Entry {
    fn is_fresh(&self, now: Duration) -> bool {
        self.told.is_some_and(|told| now < told + KEPT)
    }

    fn reopen(&mut self, now: Duration) {
        if self.open {
            return;
        }
        self.open = true;
        self.count = self.count.saturating_add(1);
        self.due = Some(self.told.map_or(now, |told| now.max(told + SERIES_PAUSE)));
    }
}

/// What is read. What is so on one node names it; what the object itself says is the same on every node, and told once.
fn note(problem: &Problem, node: &str) -> String {
    let text = if problem.of_node && problem.kind != Kind::Node {
        format!("node {node}: {}", problem.what)
    } else {
        problem.what.clone()
    };
    shortened(&text, NOTE)
}

/// As much of it as fits.
pub(super) fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// The object's name, a dot, and a number, as client libraries name Events; the number follows from what is said.
fn name(problem: &Problem, note: &str) -> String {
    let uid = problem.uid.as_deref().unwrap_or_default();
    let number = hash(&[&problem.object, uid, problem.reason.name(), note]);
    let most = problem.name.name.len().min(230);
    let stem = problem.name.name.get(..most).unwrap_or_default();
    format!("{}.{number:016x}", stem.trim_end_matches(['-', '.']))
}

/// So that not all nodes say everything again in the same minute.
fn spread(name: &str) -> Duration {
    Duration::from_secs(hash(&[name]) % 600)
}

/// FNV-1a: the same in every version of weir.
fn hash(words: &[&str]) -> u64 {
    let bytes = words.iter().flat_map(|word| word.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use proxy_model::{ObjectName, Reason};

    use super::*;

    const fn second(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn problem(name: &str, what: &str) -> Problem {
        Problem {
            uid: Some(format!("uid-of-{name}")),
            ..Problem::new(Kind::Service, &ObjectName::new("shop", name), what)
        }
    }

    /// Says all that is due, each with this outcome; returns the counts by name.
    fn say(told: &mut Told, now: Duration, outcome: Outcome) -> Vec<(String, i32)> {
        let mut said = Vec::new();
        while let Next::Say(saying) = told.next(now) {
            told.said(&saying, outcome, now);
            said.push((saying.problem.name.name.clone(), saying.count));
            assert!(said.len() < 100, "{said:?}");
        }
        said
    }

    fn one(name: &str, count: i32) -> Vec<(String, i32)> {
        vec![(name.to_owned(), count)]
    }

    #[test]
    fn a_problem_is_told_once_and_again_when_the_server_has_forgotten_it() {
        let mut told = Told::new("n1".to_owned());
        assert_eq!(told.next(second(0)), Next::Idle);
        let problems = [problem("web", "is odd")];
        told.learn(&problems, second(0));
        assert_eq!(say(&mut told, second(0), Outcome::Settled), one("web", 1));
        for passed in 1..100 {
            told.learn(&problems, second(passed));
            assert_eq!(say(&mut told, second(passed), Outcome::Settled), []);
        }
        let Next::Wait(again) = told.next(second(100)) else {
            panic!("{told:?}")
        };
        assert!(again >= KEPT && again < KEPT + second(600), "{again:?}");
        assert_eq!(say(&mut told, again, Outcome::Settled), one("web", 1));
    }

    #[test]
    fn what_comes_back_is_counted_but_not_each_time() {
        let mut told = Told::new("n1".to_owned());
        let problems = [problem("web", "is odd")];
        told.learn(&problems, second(0));
        assert_eq!(say(&mut told, second(0), Outcome::Settled), one("web", 1));
        for passed in 1..=10 {
            told.learn(&[], second(passed));
            told.learn(&problems, second(passed));
            assert_eq!(told.next(second(passed)), Next::Wait(SERIES_PAUSE));
        }
        assert_eq!(say(&mut told, SERIES_PAUSE, Outcome::Settled), one("web", 11));
        // What is over when its turn comes is not said.
        told.learn(&[], second(301));
        told.learn(&problems, second(302));
        told.learn(&[], second(303));
        assert_eq!(told.next(second(5000)), Next::Idle);
        told.learn(&[], second(5000));
        assert_eq!(told.entries.len(), 0, "long settled");
    }

    #[test]
    fn a_series_whose_event_is_gone_begins_anew() {
        let mut told = Told::new("n1".to_owned());
        let problems = [problem("web", "is odd")];
        told.learn(&problems, second(0));
        say(&mut told, second(0), Outcome::Settled);
        told.learn(&[], second(1));
        told.learn(&problems, second(400));
        let Next::Say(saying) = told.next(second(400)) else {
            panic!("{told:?}")
        };
        assert_eq!(saying.count, 2);
        told.said(&saying, Outcome::Forgotten, second(400));
        assert_eq!(say(&mut told, second(400), Outcome::Settled), one("web", 1));
    }

    #[test]
    fn many_are_told_slowly() {
        let mut told = Told::new("n1".to_owned());
        let problems: Vec<_> = (0..2 * MOST)
            .map(|number| problem(&format!("s{number}"), "is odd"))
            .collect();
        told.learn(&problems, second(0));
        assert_eq!(told.entries.len(), MOST);
        assert_eq!(say(&mut told, second(0), Outcome::Settled).len(), 25);
        assert_eq!(told.next(second(0)), Next::Wait(PER));
        assert_eq!(say(&mut told, second(50), Outcome::Settled).len(), 10);
        // One object cannot take the place of all others.
        let mut told = Told::new("n1".to_owned());
        let problems: Vec<_> = (0..MOST)
            .map(|number| problem("web", &format!("is odd {number}")))
            .collect();
        told.learn(&problems, second(0));
        assert_eq!(told.entries.len(), MOST_OF_ONE);
    }

    #[test]
    fn a_server_that_is_away_is_asked_less_and_less() {
        let mut told = Told::new("n1".to_owned());
        told.learn(&[problem("web", "is odd"), problem("db", "is odd")], second(0));
        let (mut now, mut waits) = (second(0), Vec::new());
        for _ in 0..7 {
            assert_eq!(say(&mut told, now, Outcome::Unheard).len(), 1);
            let Next::Wait(at) = told.next(now) else {
                panic!("{told:?}")
            };
            waits.push(at.saturating_sub(now).as_secs());
            now = at;
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(say(&mut told, now, Outcome::Settled).len(), 2);
    }

    #[test]
    fn names_tell_the_same_on_every_node_unless_the_node_matters() {
        let of = |node: &str, problem: &Problem| name(problem, &note(problem, node));
        let odd = problem("web", "is odd");
        assert_eq!(of("n1", &odd), of("n2", &odd));
        assert_eq!(of("n1", &odd).len(), "web.".len() + 16);
        // What a user wrote says nothing about the node.
        let quoted = problem("web", "appProtocol \"this node\" is odd");
        assert_eq!(of("n1", &quoted), of("n2", &quoted));
        let here = problem("web", "clusterIP 192.0.2.1 is an address of this node").on_this_node();
        assert_ne!(of("n1", &here), of("n2", &here));
        assert!(note(&here, "n1").starts_with("node n1: clusterIP"));
        let refused = odd.clone().because(Reason::FailedToProgram);
        assert_ne!(of("n1", &refused), of("n2", &refused));
        assert_ne!(of("n1", &refused), of("n1", &odd));
        let recreated = Problem {
            uid: Some("another".to_owned()),
            ..odd.clone()
        };
        assert_ne!(of("n1", &recreated), of("n1", &odd));
        let node = Problem::new(Kind::Node, &ObjectName::new("", "n1"), "x of this node");
        assert_eq!(note(&node, "n1"), "x of this node");
    }

    #[test]
    fn long_texts_are_shortened() {
        let long = problem("web", &"ü".repeat(600));
        let short = note(&long, "n1");
        assert!(short.len() <= NOTE && short.ends_with("ü…"), "{short}");
        let long = problem(&format!("{}.{}", "a".repeat(229), "b".repeat(20)), "x");
        assert_eq!(name(&long, "x").len(), 229 + 1 + 16);
    }
}
