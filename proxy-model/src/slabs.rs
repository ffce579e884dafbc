//! Slabs: runs of slots in `BACKENDS`. A change writes a new slab beside the old one and then moves the service over.

use std::collections::BTreeMap;
use std::time::Duration;

use proxy_common::BackendRange;

use crate::leaving::Leaving;

/// Gives out runs of slots.
#[derive(Debug)]
pub struct Slabs {
    /// Free runs, first slot to length; no two touch.
    free: BTreeMap<u32, u32>,
    /// Runs that will be free.
    pub leaving: Leaving<BackendRange>,
}

impl Slabs {
    /// Slots 0 to `limit` - 1, all free.
    pub fn new(limit: usize) -> Self {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        Self {
            free: BTreeMap::from([(0, limit)]),
            leaving: Leaving::default(),
        }
    }

    /// The first run that is long enough; `None` if there is none.
    pub fn take(&mut self, count: u32) -> Option<BackendRange> {
        let base = self
            .free
            .iter()
            .find(|(_, length)| **length >= count)
            .map(|(base, _)| *base)?;
        let range = BackendRange { base, count };
        self.adopt(range).then_some(range)
    }

    /// Takes exactly this run; false if a part of it is in use.
    pub fn adopt(&mut self, range: BackendRange) -> bool {
        let Some((base, length)) = self
            .free
            .range(..=range.base)
            .next_back()
            .map(|(base, length)| (*base, *length))
        else {
            return false;
        };
        let Some((end, free_end)) = range.base.checked_add(range.count).zip(base.checked_add(length)) else {
            return false;
        };
        if end > free_end {
            return false;
        }
        self.free.remove(&base);
        if base < range.base {
            self.free.insert(base, range.base - base);
        }
        if end < free_end {
            self.free.insert(end, free_end - end);
        }
        true
    }

    /// Takes a run back that no row ever referred to; it is free at once.
    pub fn restore(&mut self, range: BackendRange) {
        let BackendRange { mut base, mut count } = range;
        if count == 0 {
            return;
        }
        if let Some(length) = self.free.remove(&base.saturating_add(count)) {
            count += length;
        }
        let before = self
            .free
            .range(..base)
            .next_back()
            .map(|(start, length)| (*start, *length));
        if let Some((start, length)) = before.filter(|(start, length)| start.saturating_add(*length) == base)
        {
            base = start;
            count += length;
        }
        self.free.insert(base, count);
    }

    /// Frees what has waited long enough; says whether there was any.
    pub fn expire(&mut self, now: Duration) -> bool {
        let due = self.leaving.due(now);
        for range in &due {
            self.restore(*range);
        }
        !due.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaving::GRACE;

    #[test]
    fn runs_are_first_fit_and_join_again() {
        let range = |base, count| BackendRange { base, count };
        let mut slabs = Slabs::new(10);
        assert_eq!(slabs.take(4), Some(range(0, 4)));
        assert_eq!(slabs.take(4), Some(range(4, 4)));
        assert_eq!(slabs.take(4), None);
        slabs.leaving.push(range(0, 4), Duration::ZERO);
        slabs.expire(Duration::from_millis(999));
        assert_eq!(slabs.take(4), None, "in its grace period");
        slabs.expire(GRACE);
        assert_eq!(slabs.take(3), Some(range(0, 3)));
        slabs.restore(range(4, 4));
        assert_eq!(
            slabs.take(7),
            Some(range(3, 7)),
            "3, 4 to 7 and 8 to 9 have joined"
        );
    }

    #[test]
    fn adopting_needs_free_slots() {
        let range = |base, count| BackendRange { base, count };
        let mut slabs = Slabs::new(10);
        assert!(slabs.adopt(range(3, 4)));
        assert!(!slabs.adopt(range(6, 1)));
        assert!(!slabs.adopt(range(0, 4)));
        assert!(!slabs.adopt(range(8, 3)));
        assert!(!slabs.adopt(range(u32::MAX, 2)));
        assert!(slabs.adopt(range(7, 3)));
        assert_eq!(slabs.take(3), Some(range(0, 3)));
        assert_eq!(slabs.take(1), None);
    }
}
