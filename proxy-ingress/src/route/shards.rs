//! A map by name of which a changed copy costs little: what did not change is shared with the former one.
//!
//! ```text
//!  hash of the name ──▶ one of 256 shards ──▶ sorted by hash
//! ```
//!
//! A copy with one change is 256 counters up and one shard copied: some 20 entries of 5,000, 400 of 100,000.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

/// Shards of a map; a power of two up to 65,536.
const SHARDS: u16 = 256;

/// What has a name.
pub(crate) trait Named: Clone {
    /// The name; it never changes.
    fn name(&self) -> &str;
}

/// Things by name.
#[derive(Clone)]
pub(crate) struct Shards<T> {
    /// Empty, or [`SHARDS`] of them.
    shards: Box<[Shard<T>]>,
    length: usize,
}

/// Sorted by hash.
type Shard<T> = Arc<Vec<(u64, T)>>;

impl<T> Default for Shards<T> {
    fn default() -> Self {
        Self {
            shards: Box::default(),
            length: 0,
        }
    }
}

impl<T: Named> Shards<T> {
    /// What has this name.
    pub(crate) fn get(&self, name: &str) -> Option<&T> {
        if self.length == 0 {
            return None;
        }
        let hash = hash(name);
        let shard = self.shards.get(shard_of(hash))?;
        match place(shard, hash, name) {
            Ok(found) => shard.get(found).map(|(_, thing)| thing),
            Err(_) => None,
        }
    }

    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// All, in no order that means anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.shards
            .iter()
            .flat_map(|shard| shard.iter())
            .map(|(_, thing)| thing)
    }

    /// Puts something in the place of what has its name.
    pub(crate) fn insert(&mut self, thing: T) {
        if self.shards.is_empty() {
            self.shards = vec![Shard::default(); SHARDS.into()].into_boxed_slice();
        }
        let hash = hash(thing.name());
        let Some(shard) = self.shards.get_mut(shard_of(hash)) else {
            return;
        };
        let shard = Arc::make_mut(shard);
        match place(shard, hash, thing.name()) {
            Ok(found) => {
                if let Some((_, old)) = shard.get_mut(found) {
                    *old = thing;
                }
            }
            Err(free) => {
                shard.insert(free, (hash, thing));
                self.length += 1;
            }
        }
    }

    /// Takes out what has this name.
    pub(crate) fn remove(&mut self, name: &str) {
        let hash = hash(name);
        let Some(shard) = self.shards.get_mut(shard_of(hash)) else {
            return;
        };
        if let Ok(found) = place(shard, hash, name) {
            Arc::make_mut(shard).remove(found);
            self.length -= 1;
        }
    }
}

impl<T: Named + fmt::Debug> fmt::Debug for Shards<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Without a secret: names come from objects, not from requests, and a shard with equal hashes is still searched.
fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

fn shard_of(hash: u64) -> usize {
    usize::from(u16::try_from(hash >> 48).unwrap_or_default() % SHARDS)
}

/// Where a name is, or where it would go.
fn place<T: Named>(shard: &[(u64, T)], hash: u64, name: &str) -> Result<usize, usize> {
    let first = shard.partition_point(|(other, _)| *other < hash);
    let same = shard.iter().skip(first).take_while(|(other, _)| *other == hash);
    let found = same.enumerate().find(|(_, (_, thing))| thing.name() == name);
    found.map_or(Err(first), |(after, _)| Ok(first + after))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, PartialEq, Debug)]
    struct Thing(String, u8);

    impl Named for Thing {
        fn name(&self) -> &str {
            &self.0
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_former_copies_do_not_change(
            steps in prop::collection::vec((0..40_u8, prop::option::of(any::<u8>())), 0..200),
        ) {
            let mut known = BTreeMap::new();
            let mut shards = Shards::default();
            for (name, value) in steps {
                let before = shards.clone();
                let copy: Vec<Thing> = before.iter().cloned().collect();
                let name = format!("host-{name}");
                if let Some(value) = value {
                    known.insert(name.clone(), value);
                    shards.insert(Thing(name, value));
                } else {
                    known.remove(&name);
                    shards.remove(&name);
                }
                prop_assert_eq!(before.iter().cloned().collect::<Vec<_>>(), copy);
                prop_assert_eq!(shards.is_empty(), known.is_empty());
                prop_assert_eq!(shards.iter().count(), known.len());
                for number in 0..40 {
                    let name = format!("host-{number}");
                    prop_assert_eq!(shards.get(&name).map(|thing| thing.1), known.get(&name).copied());
                }
            }
        }
    }

    #[test]
    fn names_with_the_same_hash_are_told_apart() {
        let shard = [
            (7, Thing("a".into(), 1)),
            (7, Thing("b".into(), 2)),
            (9, Thing("c".into(), 3)),
        ];
        assert_eq!(place(&shard, 7, "b"), Ok(1));
        assert_eq!(place(&shard, 7, "x"), Err(0));
        assert_eq!(place(&shard, 8, "x"), Err(2));
    }
}
