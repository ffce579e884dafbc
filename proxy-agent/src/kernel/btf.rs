//! The kernel's type information (BTF, Documentation/bpf/btf.rst): just enough to find a function and a member.

use std::ops::Range;

/// Where the kernel shows its own.
pub(super) const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
/// Kinds of types.
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FUNC: u32 = 12;
/// Anonymous structures in each other that are looked through.
const DEPTH: usize = 8;

/// Types by number, and their names.
pub(super) struct Btf<'a> {
    bytes: &'a [u8],
    strings: Range<usize>,
    /// Where each type is described. Number 0 is `void`.
    types: Vec<usize>,
}

/// A description of a type.
struct Type {
    name: u32,
    kind: u32,
    members: usize,
    /// Offsets of members hold sizes of bit fields as well.
    bit_fields: bool,
}

/// Where a bit field is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bits {
    pub(super) offset: u32,
    pub(super) size: u32,
}

impl<'a> Btf<'a> {
    /// Finds the types; `None` if this is no BTF, or has kinds of types that are not known.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = word(bytes, 4)?;
        if u16::from_ne_bytes(*bytes.first_chunk()?) != MAGIC {
            return None;
        }
        let part = |at: usize| {
            let from = word(bytes, at)?.checked_add(header)?;
            let to = from.checked_add(word(bytes, at + 4)?)?;
            (to <= bytes.len()).then_some(from..to)
        };
        let (all, strings) = (part(8)?, part(16)?);
        let mut types = vec![all.start];
        let mut at = all.start;
        while at < all.end {
            types.push(at);
            let (kind, members) = kind(word(bytes, at + 4)?);
            at = at.checked_add(12 + more(kind, members)?)?;
        }
        Some(Self {
            bytes,
            strings,
            types,
        })
    }

    /// The number of a function.
    pub(super) fn function(&self, name: &str) -> Option<u32> {
        self.find(FUNC, name)
    }

    /// Where a structure has a bit field, in itself or in what it has no name for.
    pub(super) fn bit_field(&self, structure: &str, member: &str) -> Option<Bits> {
        self.member(self.find(STRUCT, structure)?, member, DEPTH)
    }

    fn find(&self, kind: u32, name: &str) -> Option<u32> {
        let is = |number: &u32| {
            self.describe(*number)
                .is_some_and(|found| found.kind == kind && self.is_named(found.name, name))
        };
        (1..u32::try_from(self.types.len()).ok()?).find(is)
    }

    fn member(&self, number: u32, wanted: &str, depth: usize) -> Option<Bits> {
        let described = self.describe(number)?;
        if depth == 0 || !matches!(described.kind, STRUCT | UNION) {
            return None;
        }
        let first = *self.types.get(usize::try_from(number).ok()?)? + 12;
        (0..described.members).find_map(|index| {
            let at = first + 12 * index;
            let (name, kind, place) = (self.word(at)?, self.word(at + 4)?, self.word(at + 8)?);
            let (offset, size) = if described.bit_fields {
                (place & 0x00ff_ffff, place >> 24)
            } else {
                (place, 0)
            };
            if self.is_named(name, wanted) {
                return Some(Bits { offset, size });
            }
            if !self.is_named(name, "") {
                return None;
            }
            let inside = self.member(kind, wanted, depth - 1)?;
            Some(Bits {
                offset: offset.checked_add(inside.offset)?,
                size: inside.size,
            })
        })
    }

    fn describe(&self, number: u32) -> Option<Type> {
        let at = *self.types.get(usize::try_from(number).ok()?)?;
        let information = self.word(at + 4)?;
        let (kind, members) = kind(usize::try_from(information).ok()?);
        Some(Type {
            name: self.word(at)?,
            kind,
            members,
            bit_fields: information >> 31 != 0,
        })
    }

    fn is_named(&self, name: u32, wanted: &str) -> bool {
        let strings = self.bytes.get(self.strings.clone()).unwrap_or_default();
        usize::try_from(name)
            .ok()
            .and_then(|at| strings.get(at..))
            .and_then(|rest| rest.strip_prefix(wanted.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    fn word(&self, at: usize) -> Option<u32> {
        word(self.bytes, at).and_then(|word| u32::try_from(word).ok())
    }
}

/// A 32-bit number.
fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let number = u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?);
    usize::try_from(number).ok()
}

/// The kind of a type, and how many members it has.
fn kind(information: usize) -> (u32, usize) {
    let kind = u32::try_from(information >> 24 & 0x1f).unwrap_or_default();
    (kind, information & 0xffff)
}

/// Bytes behind the first twelve of a type's description.
fn more(kind: u32, members: usize) -> Option<usize> {
    Some(match kind {
        // Pointers, forward declarations, typedefs, qualifiers, functions, floats and tags on types.
        2 | 7..=FUNC | 16 | 18 => 0,
        // Integers, variables, tags on declarations.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Enumerations, prototypes.
        6 | 13 => 8 * members,
        // Structures, unions, sections, 64-bit enumerations.
        STRUCT | UNION | 15 | 19 => 12 * members,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRINGS: &[u8] = b"\0buff\0cast\0kind\0summed\0";

    /// `struct buff { int kind; union { struct { unsigned kind : 5, summed : 2; }; }; }` and `cast()`.
    fn sample(odd_kind: u32) -> Vec<u8> {
        let structure = |kind: u32, bit_fields: u32, members: u32| bit_fields << 31 | kind << 24 | members;
        let types = [
            // 1: an integer.
            [0, 1 << 24, 4].as_slice(),
            &[32],
            // 2: the innermost.
            &[0, structure(STRUCT, 1, 2), 4],
            &[11, 1, 5 << 24, 16, 1, 2 << 24 | 5],
            // 3: around it.
            &[0, structure(UNION, 0, 1), 4],
            &[0, 2, 0],
            // 4: the structure.
            &[1, structure(STRUCT, 0, 2), 8],
            &[11, 1, 0, 0, 3, 32],
            // 5: the function, of whatever type.
            &[6, odd_kind << 24, 1],
        ]
        .concat();
        let length = u32::try_from(types.len() * 4).unwrap_or_default();
        let strings = u32::try_from(STRINGS.len()).unwrap_or_default();
        let header = [24, 0, length, length, strings];
        let mut bytes = [MAGIC.to_ne_bytes(), [1, 0]].concat();
        bytes.extend(header.iter().chain(&types).flat_map(|word| word.to_ne_bytes()));
        bytes.extend(STRINGS);
        bytes
    }

    #[test]
    fn members_are_found_in_what_has_no_name() {
        let bytes = sample(FUNC);
        let btf = Btf::parse(&bytes).expect("it is BTF");
        let found = btf.bit_field("buff", "summed");
        assert_eq!(found, Some(Bits { offset: 37, size: 2 }));
        let first = btf.bit_field("buff", "kind");
        assert_eq!(first, Some(Bits { offset: 0, size: 0 }), "the outer one");
        assert_eq!(btf.bit_field("buff", "sum"), None);
        assert_eq!(btf.function("cast"), Some(5));
        assert_eq!(btf.function("buff"), None, "a structure is no function");
    }

    #[test]
    fn what_is_damaged_or_unknown_is_refused() {
        assert!(Btf::parse(&sample(31)).is_none(), "a kind of a kernel to come");
        let whole = sample(FUNC);
        for length in 0..whole.len() {
            let cut = whole.get(..length).unwrap_or_default();
            assert!(Btf::parse(cut).is_none(), "{length} bytes");
        }
    }
}
