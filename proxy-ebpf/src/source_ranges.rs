//! `SOURCE_RANGES`, asked once for each connection to a guarded frontend.

use aya_ebpf::btf_maps::lpm_trie;
use proxy_common::{SourceKey, SourceRange};

use crate::maps;
use crate::words::{bytes, words};

/// What [`look_up`] says if there is no range; no generation is as large.
const NONE: u64 = u64::MAX;

/// The longest range of the service port that the source is in.
#[inline(always)]
pub(crate) fn find(source: &SourceKey) -> Option<SourceRange> {
    let [a, b, c, d] = words(&source.address);
    let high = u64::from(a) | u64::from(b) << 32;
    let low = u64::from(c) | u64::from(d) << 32;
    match look_up(source.service, high, low) {
        NONE => None,
        generation => Some(SourceRange {
            generation: (generation & 0xffff_ffff) as u32,
        }),
    }
}

/// verifier: a function of its own, because the key would be on the stack of `connect` for all that follows.
#[inline(never)]
fn look_up(service: u32, high: u64, low: u64) -> u64 {
    let low_word = |word: u64| (word & 0xffff_ffff) as u32;
    let address = bytes([
        low_word(high),
        low_word(high >> 32),
        low_word(low),
        low_word(low >> 32),
    ]);
    let key = SourceKey { service, address };
    maps::SOURCE_RANGES
        .get(&lpm_trie::Key::new(SourceKey::BITS, key))
        .map_or(NONE, |range| u64::from(range.generation))
}
