//! Numbers that look random: for drawing endpoints and for spreading keys over them. Nothing secret depends on them.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

/// Every bit of the input turns about half of the output's (`SplitMix64`).
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The same for the same bytes on every machine and in every version: endpoints are named by it in cookies.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let fnv = |state: u64, byte: &u8| (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// A number below `count`, and 0 if there is none.
pub(crate) fn below(count: usize, random: u64) -> usize {
    let product = u128::from(random) * u128::try_from(count).unwrap_or(0);
    usize::try_from(product >> 64).unwrap_or(0)
}

/// A source of them, for one thread.
#[derive(Debug)]
pub(crate) struct Random(Cell<u64>);

impl Random {
    /// Seeded by the system.
    pub(crate) fn new() -> Self {
        Self(Cell::new(RandomState::new().hash_one(0)))
    }

    pub(crate) fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        mix(state)
    }
}
