//! Whom clients stick to, in both worlds.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use proxy_common::{Affinity, AffinityBackend, AffinityKey};

use super::Pair;
use crate::kernel::Kernel;
use crate::memory::{Memory, Touched};
use crate::node::{self, Rows};

impl Pair {
    /// Writes whom a client sticks to, or removes it.
    pub fn set_affinity(&mut self, key: &AffinityKey, row: Option<&Affinity>) -> Result<()> {
        match row {
            Some(row) => self.memory.affinity.borrow_mut().insert(*key, *row),
            None => self.memory.affinity.borrow_mut().remove(key),
        };
        self.kernel
            .as_mut()
            .map_or(Ok(()), |kernel| kernel.set_affinity(key, row))
    }

    /// Writes that clients may stick to a backend, or removes it.
    pub fn set_affinity_backend(&mut self, id: u32, row: Option<&AffinityBackend>) -> Result<()> {
        match row {
            Some(row) => self.memory.affinity_backends.insert(id, *row),
            None => self.memory.affinity_backends.remove(&id),
        };
        self.kernel
            .as_mut()
            .map_or(Ok(()), |kernel| kernel.set_affinity_backend(id, row))
    }

    /// The last backend of a service port leaves its cluster's set, or comes back to it.
    pub fn set_last_backend(&mut self, id: u32, there: bool) -> Result<()> {
        let rows = node::rows(1);
        let mut last = None;
        for (key, mut row) in rows.services.into_iter().filter(|(_, row)| row.id == id) {
            last = row
                .cluster
                .count
                .checked_sub(1)
                .map(|before| row.cluster.base + before);
            row.cluster.count -= u32::from(!there && row.cluster.count > 0);
            self.set_service(&key, Some(&row))?;
        }
        let row = rows
            .affinity_backends
            .into_iter()
            .find(|row| Some(row.backend.id) == last);
        match row {
            Some(mut row) => {
                row.in_cluster = u8::from(there);
                self.set_affinity_backend(row.backend.id, Some(&row))
            }
            None => Ok(()),
        }
    }

    /// The rows of all clients, in order.
    pub(crate) fn affinity_rows(&self) -> Vec<(AffinityKey, Affinity)> {
        let rows = self.memory.affinity.borrow();
        let mut rows: Vec<_> = rows.iter().map(|(key, row)| (*key, *row)).collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        rows
    }

    /// Lets all clients look as if they had stayed away for so long.
    pub(super) fn age_affinity(&mut self, seconds: u32) -> Result<()> {
        for (key, row) in self.affinity_rows() {
            let aged = Affinity {
                last_seen: row.last_seen.saturating_sub(seconds),
                ..row
            };
            self.set_affinity(&key, Some(&aged))?;
        }
        Ok(())
    }

    /// Compares all clients.
    pub(super) fn compare_affinity(&self, kernel: &Kernel) -> Result<()> {
        let affinities = kernel.affinities()?;
        ensure!(
            affinities == *self.memory.affinity.borrow(),
            "clients stick to other backends: user {:?}, kernel {affinities:?}",
            self.memory.affinity.borrow()
        );
        Ok(())
    }
}

/// The backends that clients may stick to, by id.
pub(super) fn backends(rows: &Rows) -> HashMap<u32, AffinityBackend> {
    let rows = rows.affinity_backends.iter();
    rows.map(|row| (row.backend.id, *row)).collect()
}

/// Compares the clients that a packet concerned.
pub(super) fn same(memory: &Memory, kernel: &Kernel, touched: &Touched) -> Result<()> {
    for (key, _) in &touched.affinity {
        let (expected, found) = (memory.affinity.borrow().get(key).copied(), kernel.affinity(key)?);
        ensure!(
            found == expected,
            "affinity {key:?}: user {expected:?}, kernel {found:?}"
        );
    }
    Ok(())
}
