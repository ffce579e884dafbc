//! One timer per worker looks after all its connections: slow heads, idle connections, clients that take nothing, clients
//! that only give up or send only frames that carry nothing, and the end of a drain. What a connection did between two looks tells how long it has done nothing,
//! so requests neither read a clock nor set a timer for this.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use crate::metrics::tally::Limit;
use crate::seen::{End, Seen};
use crate::settings::Settings;
use crate::wire::Vitals;

/// What is to become of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) enum Fate {
    /// Go on.
    #[default]
    Stay,
    /// Take no more requests, and end after those at work.
    Finish,
    /// End now.
    Close,
}

/// What is to be seen of a connection at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Look {
    in_head: bool,
    stuck: bool,
    /// Not read for what it sent.
    held: bool,
    writes: u32,
    /// Requests at work.
    active: u32,
    /// Of them, those that wait for a backend.
    waiting: u32,
    /// Requests that have begun so far.
    begun: u32,
    /// Pieces of responses handed to the connection so far.
    pieces: u32,
}

/// For how long something has been as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Ages {
    head: Duration,
    idle: Duration,
    stuck: Duration,
    /// Since clients' resets were counted anew.
    resets: Duration,
}

/// A connection that is looked after.
#[derive(Debug, Default)]
pub(crate) struct Tended {
    vitals: Arc<Vitals>,
    active: Cell<u32>,
    waiting: Cell<u32>,
    begun: Cell<u32>,
    pieces: Cell<u32>,
    given_up: Cell<u32>,
    fate: Cell<Fate>,
    waker: RefCell<Option<Waker>>,
    last: Cell<Look>,
    ages: Cell<Ages>,
}

impl Tended {
    /// What its [`crate::wire::Wire`] writes to.
    pub(crate) fn vitals(&self) -> Arc<Vitals> {
        Arc::clone(&self.vitals)
    }

    /// What is to become of it; the task that asks is woken when that changes.
    pub(crate) fn fate(&self, waker: &Waker) -> Fate {
        let mut slot = self.waker.borrow_mut();
        if !slot.as_ref().is_some_and(|there| there.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
        self.fate.get()
    }

    /// Fates only get worse.
    pub(crate) fn meets(&self, fate: Fate) {
        if fate <= self.fate.get() {
            return;
        }
        self.fate.set(fate);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// A request begins.
    pub(crate) fn begin(self: &Rc<Self>, give_up_limit: u32) -> Work {
        self.active.set(self.active.get() + 1);
        self.begun.set(self.begun.get().wrapping_add(1));
        self.waiting.set(self.waiting.get() + 1);
        Work {
            of: Rc::clone(self),
            waits: true,
            done: false,
            give_up_limit,
            seen: None,
        }
    }

    /// Looks, some time after the last look; the limit, if it has met one.
    pub(crate) fn look(&self, since: Duration, settings: &Settings) -> Option<Limit> {
        let now = Look {
            in_head: self.vitals.in_head.load(Ordering::Relaxed),
            stuck: self.vitals.stuck.load(Ordering::Relaxed),
            held: self.vitals.held.load(Ordering::Relaxed),
            writes: self.vitals.writes.load(Ordering::Relaxed),
            active: self.active.get(),
            waiting: self.waiting.get(),
            begun: self.begun.get(),
            pieces: self.pieces.get(),
        };
        self.forgive(since, settings);
        let last = self.last.replace(now);
        let ages = age(self.ages.get(), last, now, since);
        if ages.resets > settings.keep_alive {
            self.given_up.set(0);
            self.ages.set(Ages {
                resets: Duration::ZERO,
                ..ages
            });
        } else {
            self.ages.set(ages);
        }
        let fate = judge(ages, settings);
        let closes = fate == Fate::Close && self.fate.get() < Fate::Close;
        self.meets(fate);
        match closes {
            true if ages.head >= settings.header_timeout => Some(Limit::HeaderTimeout),
            true => Some(Limit::WriteTimeout),
            false => (now.held && !last.held).then_some(Limit::IdleFrames),
        }
    }

    /// Time makes up for frames that carry nothing.
    fn forgive(&self, since: Duration, settings: &Settings) {
        let frames = u128::from(settings.http2.idle_frames) * since.as_millis() / 1000;
        let frames = u32::try_from(frames).unwrap_or(u32::MAX);
        self.vitals.forgiven.fetch_add(frames, Ordering::Relaxed);
        self.vitals.reader.wake();
    }
}

fn age(ages: Ages, last: Look, now: Look, since: Duration) -> Ages {
    let grown = |same: bool, age: Duration| if same { age + since } else { Duration::ZERO };
    let same_request = last.begun == now.begun;
    // A peer that opens its window byte by byte moves as well: what counts is that it takes anything.
    let unsent = now.stuck && last.stuck && last.writes == now.writes;
    let undelivered = now.active > now.waiting && now.waiting == 0 && last.pieces == now.pieces;
    Ages {
        head: grown(now.in_head && last.in_head && same_request, ages.head),
        idle: grown(now.active == 0 && !now.in_head && same_request, ages.idle),
        stuck: grown(unsent || undelivered && same_request, ages.stuck),
        resets: ages.resets + since,
    }
}

fn judge(ages: Ages, settings: &Settings) -> Fate {
    if ages.head >= settings.header_timeout || ages.stuck >= settings.write_timeout {
        Fate::Close
    } else if ages.idle >= settings.keep_alive {
        Fate::Finish
    } else {
        Fate::Stay
    }
}

/// A request at work, from its head to the last piece of the response.
pub(crate) struct Work {
    of: Rc<Tended>,
    waits: bool,
    done: bool,
    give_up_limit: u32,
    seen: Option<Rc<Seen>>,
}

impl Work {
    /// With what is to be told of it.
    pub(crate) fn telling(mut self, seen: &Rc<Seen>) -> Self {
        self.seen = Some(Rc::clone(seen));
        self
    }

    /// Whether the backend is what the request waits for.
    pub(crate) fn waits(&mut self, waits: bool) {
        if self.waits == waits {
            return;
        }
        self.waits = waits;
        let waiting = self.of.waiting.get();
        self.of.waiting.set(if waits {
            waiting + 1
        } else {
            waiting.saturating_sub(1)
        });
    }

    /// A piece of the response was handed on.
    pub(crate) fn piece(&mut self, bytes: usize) {
        if let Some(seen) = &self.seen {
            seen.sent(bytes);
        }
        self.waits(false);
        self.of.pieces.set(self.of.pieces.get().wrapping_add(1));
    }

    /// The response is whole, or the fault is not the client's.
    pub(crate) fn done(&mut self) {
        self.done = true;
    }

    /// The response breaks off, and the fault is not the client's.
    pub(crate) fn ends(&mut self, end: End) {
        self.done = true;
        if let Some(seen) = &self.seen {
            seen.ends(end);
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.waits(false);
        self.of.active.set(self.of.active.get().saturating_sub(1));
        if self.done {
            return;
        }
        // Given up by the client. Each was work for a backend, however few streams are open at a time (rapid reset).
        let given_up = self.of.given_up.get() + 1;
        self.of.given_up.set(given_up);
        let too_often = given_up > self.give_up_limit;
        if let Some(seen) = &self.seen {
            seen.given_up(too_often && self.of.fate.get() < Fate::Close);
        }
        if too_often {
            self.of.meets(Fate::Close);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Seconds until it happens, if every second looks like this.
    fn seconds(look: impl Fn(u32) -> Look, until: Fate) -> Option<u32> {
        let settings = Settings::default();
        let mut ages = Ages::default();
        let mut last = Look::default();
        (1..200).find(|second| {
            let now = look(*second);
            ages = age(ages, last, now, SECOND);
            last = now;
            judge(ages, &settings) >= until
        })
    }

    #[test]
    fn slow_heads_idle_and_stuck_connections_end_in_their_time() {
        let busy = Look {
            active: 1,
            waiting: 1,
            begun: 1,
            ..Look::default()
        };
        let head = Look {
            in_head: true,
            ..Look::default()
        };
        assert_eq!(seconds(|_| head, Fate::Close), Some(11));
        assert_eq!(seconds(|_| Look::default(), Fate::Finish), Some(75));
        assert_eq!(seconds(|_| Look::default(), Fate::Close), None);
        assert_eq!(
            seconds(|_| busy, Fate::Finish),
            None,
            "a backend may take its time"
        );
        let stuck = Look { stuck: true, ..busy };
        assert_eq!(seconds(|_| stuck, Fate::Close), Some(61));
        let slow = |second| Look {
            writes: second,
            ..stuck
        };
        assert_eq!(seconds(slow, Fate::Close), None, "slow is not stuck");
        let windowless = Look { waiting: 0, ..busy };
        assert_eq!(seconds(|_| windowless, Fate::Close), Some(61));
    }

    #[test]
    fn requests_in_a_row_keep_a_connection_alive() {
        let row = |second| Look {
            begun: second,
            in_head: second % 2 == 0,
            ..Look::default()
        };
        assert_eq!(seconds(row, Fate::Finish), None);
    }

    #[test]
    fn who_only_gives_up_is_closed() {
        let tended = Rc::new(Tended::default());
        for _ in 0..3 {
            let mut work = tended.begin(2);
            work.done();
        }
        assert_eq!(tended.fate.get(), Fate::Stay);
        for _ in 0..3 {
            drop(tended.begin(2));
        }
        assert_eq!(tended.fate.get(), Fate::Close);
        assert_eq!((tended.active.get(), tended.waiting.get()), (0, 0));
    }
}
