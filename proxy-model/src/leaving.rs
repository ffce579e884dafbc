//! What was taken out of service, and rests before it is given out again.

use std::collections::VecDeque;
use std::time::Duration;

/// How long that is: the time in which a packet that saw the old row is long gone.
pub const GRACE: Duration = Duration::from_secs(1);

/// Things in the order in which they came, each with the time when its rest ends.
#[derive(Debug)]
pub struct Leaving<T>(VecDeque<(Duration, T)>);

impl<T> Default for Leaving<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Leaving<T> {
    /// From now on it rests.
    pub fn push(&mut self, thing: T, now: Duration) {
        self.0.push_back((now + GRACE, thing));
    }

    /// Those that have rested long enough.
    pub fn due(&mut self, now: Duration) -> Vec<T> {
        let mut due = Vec::new();
        while let Some((_, thing)) = self.0.pop_front_if(|(end, _)| *end <= now) {
            due.push(thing);
        }
        due
    }

    /// When the next rest ends.
    pub fn next(&self) -> Option<Duration> {
        self.0.front().map(|(end, _)| *end)
    }
}
