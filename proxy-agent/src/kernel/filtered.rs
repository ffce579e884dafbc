//! `ADDRESSES` with the filter before it: an address's bit is set before its row is written, and cleared after the last
//! row that falls on it is deleted, so that a bit that is not set never lies.

use std::collections::{BTreeMap, HashMap, HashSet};

use proxy_common::{Address, FilterBit, FilterWord, Ip};

use super::table::{MapError, Rows, Slots};

/// Both maps.
pub(super) struct Filtered {
    rows: Rows<Ip, Address>,
    words: Slots<FilterWord>,
    known: HashSet<Ip>,
    on_bit: HashMap<FilterBit, usize>,
}

impl Filtered {
    /// For readers; a writer calls [`Self::restore`] first.
    pub(super) fn new(rows: Rows<Ip, Address>, words: Slots<FilterWord>) -> Self {
        Self {
            rows,
            words,
            known: HashSet::new(),
            on_bit: HashMap::new(),
        }
    }

    /// Makes the filter say what the rows say; writes only what is different.
    pub(super) fn restore(&mut self) -> Result<(), MapError> {
        self.known.clear();
        self.on_bit.clear();
        let mut wanted: BTreeMap<u32, u64> = BTreeMap::new();
        for (address, _) in self.rows.all()? {
            let bit = FilterBit::of(&address);
            *wanted.entry(bit.word).or_default() |= bit.mask;
            *self.on_bit.entry(bit).or_default() += 1;
            self.known.insert(address);
        }
        for (index, word) in self.words.all()? {
            let bits = wanted.get(&index).copied().unwrap_or_default();
            if word.bits != bits {
                self.words.put(index, &FilterWord { bits })?;
            }
        }
        Ok(())
    }

    pub(super) fn put(&mut self, address: &Ip, row: Address) -> Result<(), MapError> {
        let bit = FilterBit::of(address);
        if !self.on_bit.contains_key(&bit) {
            self.write(bit, true)?;
        }
        self.rows.put(address, &row)?;
        if self.known.insert(*address) {
            *self.on_bit.entry(bit).or_default() += 1;
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, address: &Ip) -> Result<(), MapError> {
        self.rows.delete(address)?;
        if !self.known.remove(address) {
            return Ok(());
        }
        let bit = FilterBit::of(address);
        let left = self.on_bit.get(&bit).map_or(0, |count| count.saturating_sub(1));
        if left > 0 {
            self.on_bit.insert(bit, left);
            return Ok(());
        }
        self.on_bit.remove(&bit);
        self.write(bit, false)
    }

    pub(super) fn all(&self) -> Result<Vec<(Ip, Address)>, MapError> {
        self.rows.all()
    }

    /// Nobody else writes these words, so nothing is lost between the two calls.
    fn write(&mut self, bit: FilterBit, set: bool) -> Result<(), MapError> {
        let mut word = self.words.get(bit.word)?;
        if set {
            word.bits |= bit.mask;
        } else {
            word.bits &= !bit.mask;
        }
        self.words.put(bit.word, &word)
    }
}
