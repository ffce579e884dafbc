//! Ids: small, stable, lowest free first, and never the same twice without a new generation.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::leaving::Leaving;

/// Gives out ids below a limit.
#[derive(Debug)]
pub struct Ids {
    limit: u32,
    /// Ids from here on were never used.
    fresh: u32,
    /// Ids below `fresh` that are free.
    free: BTreeSet<u32>,
    /// Ids that will be free.
    pub leaving: Leaving<u32>,
    /// Last generation of each id that was ever used.
    generations: HashMap<u32, u32>,
}

impl Ids {
    /// Ids 0 to `limit` - 1, all free.
    pub fn new(limit: usize) -> Self {
        Self {
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            fresh: 0,
            free: BTreeSet::new(),
            leaving: Leaving::default(),
            generations: HashMap::new(),
        }
    }

    /// How many can be given out.
    pub fn available(&self) -> usize {
        let fresh = usize::try_from(self.limit.saturating_sub(self.fresh)).unwrap_or(usize::MAX);
        fresh.saturating_add(self.free.len())
    }

    /// Gives out the lowest free id and its new generation; `None` if all are in use.
    pub fn take(&mut self) -> Option<(u32, u32)> {
        let id = match self.free.pop_first() {
            Some(id) => id,
            None if self.fresh < self.limit => {
                self.fresh += 1;
                self.fresh - 1
            }
            None => return None,
        };
        let generation = self.generations.entry(id).or_insert(0);
        *generation = generation.wrapping_add(1).max(1);
        Some((id, *generation))
    }

    /// An id of a former agent, still in use; false if it cannot be.
    pub fn adopt(&mut self, id: u32, generation: u32) -> bool {
        if id >= self.limit {
            return false;
        }
        self.remember(id, generation);
        self.free.remove(&id)
    }

    /// An id of a former agent, no longer in use: its next generation must be another one.
    pub fn remember(&mut self, id: u32, generation: u32) {
        if id < self.limit {
            self.free.extend(self.fresh..=id);
            self.fresh = self.fresh.max(id + 1);
            self.generations.insert(id, generation);
        }
    }

    /// Frees what has waited long enough; says whether there was any.
    pub fn expire(&mut self, now: Duration) -> bool {
        let due = self.leaving.due(now);
        self.free.extend(&due);
        !due.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaving::GRACE;

    #[test]
    fn the_lowest_free_id_comes_first_after_its_grace_period_with_a_new_generation() {
        let mut ids = Ids::new(3);
        assert_eq!(
            [ids.take(), ids.take(), ids.take(), ids.take()],
            [Some((0, 1)), Some((1, 1)), Some((2, 1)), None]
        );
        ids.leaving.push(1, Duration::ZERO);
        ids.leaving.push(0, Duration::ZERO);
        ids.expire(Duration::from_millis(999));
        assert_eq!(ids.take(), None);
        ids.expire(GRACE);
        assert_eq!([ids.take(), ids.take()], [Some((0, 2)), Some((1, 2))]);
    }

    #[test]
    fn adopted_ids_are_not_given_out_and_generations_go_on() {
        let mut ids = Ids::new(5);
        assert!(ids.adopt(2, 7));
        assert!(!ids.adopt(2, 7), "twice");
        assert!(!ids.adopt(5, 1), "beyond the map");
        ids.remember(1, 4);
        assert_eq!(ids.available(), 4);
        assert_eq!(
            [ids.take(), ids.take(), ids.take()],
            [Some((0, 1)), Some((1, 5)), Some((3, 1))]
        );
    }
}
