//! `SOURCE_RANGES`: which sources a service port lets in.

use aya::maps::MapData;
use aya::maps::lpm_trie::{Key, LpmTrie};
use proxy_common::{SourceKey, SourceRange, maps};
use proxy_model::Prefix;

use super::table::{MapError, map_error};

/// Bits of the service id, which is always compared as a whole.
const SERVICE_BITS: u32 = 32;

/// The map.
pub(super) struct Sources(LpmTrie<MapData, SourceKey, SourceRange>);

impl Sources {
    pub(super) fn new(map: LpmTrie<MapData, SourceKey, SourceRange>) -> Self {
        Self(map)
    }

    pub(super) fn put(&mut self, id: u32, range: Prefix, generation: u32) -> Result<(), MapError> {
        let row = SourceRange { generation };
        let written = self.0.insert(&key(id, range), &row, 0);
        written.map_err(|error| map_error(maps::SOURCE_RANGES, "write", &(id, range), error))
    }

    /// Deletes a row; that there is none is what was asked for.
    pub(super) fn delete(&mut self, id: u32, range: Prefix) -> Result<(), MapError> {
        let deleted = self.0.remove(&key(id, range));
        match deleted.map_err(|error| map_error(maps::SOURCE_RANGES, "delete", &(id, range), error)) {
            Err(MapError::Missing { .. }) => Ok(()),
            other => other,
        }
    }

    /// Every row: service id, range, generation.
    pub(super) fn all(&self) -> Result<Vec<(u32, Prefix, u32)>, MapError> {
        let mut rows = Vec::new();
        for row in &self.0 {
            let (key, row) = row.map_err(|error| map_error(maps::SOURCE_RANGES, "read", &"(all)", error))?;
            let SourceKey { service, address } = key.data();
            let bits = key.prefix_len().saturating_sub(SERVICE_BITS);
            rows.extend(Prefix::from_row(address, bits).map(|range| (service, range, row.generation)));
        }
        Ok(rows)
    }
}

fn key(id: u32, range: Prefix) -> Key<SourceKey> {
    let data = SourceKey {
        service: id,
        address: range.first(),
    };
    Key::new(SERVICE_BITS + range.bits(), data)
}
