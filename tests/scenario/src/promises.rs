//! Promises about the order and the time of steps, which no single look at the rows can show.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proxy_common::{Service, ServiceKey};
use proxy_model::{Adopted, GRACE, Step};

/// What has been seen so far.
#[derive(Debug, Default)]
pub struct Promises {
    services: BTreeMap<ServiceKey, Service>,
    /// When each slot was last referred to by a row.
    left: BTreeMap<u32, Duration>,
    /// Frontends that went since the last time that all was quiet.
    gone: BTreeSet<ServiceKey>,
}

impl Promises {
    /// From the rows that an agent finds. Packets that were under way when the former one ended are long gone.
    pub fn new(rows: &Adopted) -> Self {
        Self {
            services: rows.services.iter().copied().collect(),
            ..Self::default()
        }
    }

    /// A step that the kernel is about to do.
    pub fn before(&self, step: &Step, now: Duration) -> Result<(), String> {
        if let Step::PutBackend { slot, .. } = step
            && let Some(left) = self.left.get(slot)
            && now < *left + GRACE
        {
            return Err(format!(
                "slot {slot} is written {:?} after a row referred to it",
                now.saturating_sub(*left)
            ));
        }
        Ok(())
    }

    /// A step that the kernel has done.
    pub fn after(&mut self, step: &Step, now: Duration) {
        let (key, before) = match step {
            Step::PutService { key, service } => (key, self.services.insert(*key, *service)),
            Step::DeleteService { key } => {
                self.gone.insert(*key);
                (key, self.services.remove(key))
            }
            _ => return,
        };
        let after = self.services.get(key);
        for row in before.iter().filter(|row| Some(*row) != after) {
            for range in [row.cluster, row.local] {
                let slots = range.base..range.base.saturating_add(range.count);
                self.left.extend(slots.map(|slot| (slot, now)));
            }
        }
    }

    /// All is quiet: a frontend that is there now must not have been away since the last change.
    pub fn quiet(&mut self) -> Result<(), String> {
        let gone = std::mem::take(&mut self.gone);
        match gone.iter().find(|key| self.services.contains_key(key)) {
            Some(key) => Err(format!("{key:?} was away for a while")),
            None => Ok(()),
        }
    }
}
