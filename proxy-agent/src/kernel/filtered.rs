//! `ADDRESSES` with the filter before it: an address's bit is set before its row is written, and cleared after the last
//! row that falls on it is deleted, so that a bit that is not set never lies.

use std::collections::{BTreeMap, HashMap};

use proxy_common::{Address, FilterBit, FilterWord, Ip};

use super::table::{MapError, Rows, Slots};

/// Both maps.
pub(super) struct Filtered {
    rows: Rows<Ip, Address>,
    words: Slots<FilterWord>,
    /// The addresses that have a row, and whether it says that they are the node's own.
    known: HashMap<Ip, bool>,
    on_bit: HashMap<FilterBit, Count>,
}

/// How many addresses fall on a bit.
#[derive(Clone, Copy, Default)]
struct Count {
    all: usize,
    nodes: usize,
}

impl Filtered {
    /// For readers; a writer calls [`Self::restore`] first.
    pub(super) fn new(rows: Rows<Ip, Address>, words: Slots<FilterWord>) -> Self {
        Self {
            rows,
            words,
            known: HashMap::new(),
            on_bit: HashMap::new(),
        }
    }

    /// Makes the filter say what the rows say; writes only what is different.
    pub(super) fn restore(&mut self) -> Result<(), MapError> {
        self.known.clear();
        self.on_bit.clear();
        let mut wanted: BTreeMap<u32, FilterWord> = BTreeMap::new();
        for (address, row) in self.rows.all()? {
            let bit = FilterBit::of(&address);
            let node = row.is_node();
            let word = wanted.entry(bit.word).or_default();
            word.bits |= bit.mask;
            word.nodes |= if node { bit.mask } else { 0 };
            self.on_bit.entry(bit).or_default().add(node);
            self.known.insert(address, node);
        }
        for (index, word) in self.words.all()? {
            let wanted = wanted.get(&index).copied().unwrap_or_default();
            if word != wanted {
                self.words.put(index, &wanted)?;
            }
        }
        Ok(())
    }

    pub(super) fn put(&mut self, address: &Ip, row: Address) -> Result<(), MapError> {
        let (bit, node) = (FilterBit::of(address), row.is_node());
        let mut count = self.on_bit.get(&bit).copied().unwrap_or_default();
        count.add(node);
        self.write(bit, count)?;
        self.rows.put(address, &row)?;
        if let Some(before) = self.known.insert(*address, node) {
            count.remove(before);
        }
        self.settle(bit, count)
    }

    pub(super) fn delete(&mut self, address: &Ip) -> Result<(), MapError> {
        self.rows.delete(address)?;
        let Some(node) = self.known.remove(address) else {
            return Ok(());
        };
        let bit = FilterBit::of(address);
        let mut count = self.on_bit.get(&bit).copied().unwrap_or_default();
        count.remove(node);
        self.settle(bit, count)
    }

    pub(super) fn all(&self) -> Result<Vec<(Ip, Address)>, MapError> {
        self.rows.all()
    }

    /// Remembers how many are left, and clears the bits of none.
    fn settle(&mut self, bit: FilterBit, count: Count) -> Result<(), MapError> {
        if count.all == 0 {
            self.on_bit.remove(&bit);
        } else {
            self.on_bit.insert(bit, count);
        }
        self.write(bit, count)
    }

    /// Nobody else writes these words, so nothing is lost between the two calls.
    fn write(&mut self, bit: FilterBit, count: Count) -> Result<(), MapError> {
        let old = self.words.get(bit.word)?;
        let word = FilterWord {
            bits: with(old.bits, bit.mask, count.all > 0),
            nodes: with(old.nodes, bit.mask, count.nodes > 0),
        };
        if word == old {
            return Ok(());
        }
        self.words.put(bit.word, &word)
    }
}

impl Count {
    const fn add(&mut self, node: bool) {
        self.all += 1;
        self.nodes += node as usize;
    }

    const fn remove(&mut self, node: bool) {
        self.all = self.all.saturating_sub(1);
        self.nodes = self.nodes.saturating_sub(node as usize);
    }
}

const fn with(bits: u64, mask: u64, set: bool) -> u64 {
    if set { bits | mask } else { bits & !mask }
}
