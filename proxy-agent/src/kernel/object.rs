//! The kernel object's instructions that depend on the kernel: see [`proxy_common::object`].

use std::borrow::Cow;

use proxy_common::object::{IP_SUMMED_MARK, IP_SUMMED_SHIFT};

use super::btf::{Btf, VMLINUX};
use super::sys::{self, Instruction, ProgramKind};

/// Bytes of an instruction.
const SIZE: usize = 8;

/// Where a program finds `skb->ip_summed`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct IpSummed {
    /// The number of `bpf_cast_to_kern_ctx`.
    cast: i32,
    /// The byte of `struct sk_buff`.
    offset: i16,
}

impl IpSummed {
    /// Asks the kernel, and tries it; `None` if it does not tell, or lets no program look.
    fn find() -> Option<Self> {
        let bytes = std::fs::read(VMLINUX).ok()?;
        let found = Self::of(&Btf::parse(&bytes)?)?;
        sys::load_program(ProgramKind::Classifier, &found.probe()).ok()?;
        Some(found)
    }

    fn of(btf: &Btf<'_>) -> Option<Self> {
        let bits = btf.bit_field("sk_buff", "ip_summed")?;
        if bits.offset % 8 != IP_SUMMED_SHIFT || bits.size != 2 {
            return None;
        }
        Some(Self {
            cast: i32::try_from(btf.function("bpf_cast_to_kern_ctx")?).ok()?,
            offset: i16::try_from(bits.offset / 8).ok()?,
        })
    }

    /// A program that reads it.
    fn probe(self) -> [Instruction; 3] {
        [self.call(), self.load(), Instruction::exit()]
    }

    fn call(self) -> Instruction {
        Instruction::call_kernel(self.cast)
    }

    fn load(self) -> Instruction {
        Instruction::load_byte(0, 0, self.offset)
    }

    /// The object's instructions as they are, and as they shall be.
    fn change(self) -> ([Instruction; 4], [Instruction; 4]) {
        let mark = Instruction::set(5, IP_SUMMED_MARK);
        let skip = Instruction::skip_if_zero(0, 2);
        (
            [
                mark,
                Instruction::set(0, 0),
                skip,
                Instruction::load_byte(0, 0, 0),
            ],
            [mark, self.call(), skip, self.load()],
        )
    }
}

/// The object as this kernel is to get it.
pub fn for_this_kernel(object: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match IpSummed::find() {
        Some(found) => Cow::Owned(asking(&object, found)),
        None => object,
    }
}

/// The object with programs that ask for `ip_summed`.
fn asking(object: &[u8], found: IpSummed) -> Vec<u8> {
    let (before, after) = found.change();
    let (before, after) = (before.map(Instruction::bytes), after.map(Instruction::bytes));
    let (before, after) = (before.as_flattened(), after.as_flattened());
    let mut bytes = object.to_vec();
    // Sections of instructions begin at multiples of eight.
    let (instructions, _) = bytes.as_chunks_mut::<SIZE>();
    let mut at = 0;
    while let Some(place) = instructions.get_mut(at..at + before.len() / SIZE) {
        let place = place.as_flattened_mut();
        if place == before {
            place.copy_from_slice(after);
        }
        at += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_marked_instructions_change() {
        let found = IpSummed {
            cast: 63_548,
            offset: 128,
        };
        let (before, after) = found.change();
        let sequence = |instructions: [Instruction; 4]| instructions.map(Instruction::bytes).concat();
        let other = [Instruction::set(0, 0), Instruction::load_byte(0, 0, 0)];
        let other = other.map(Instruction::bytes).concat();
        let object = |middle: Vec<u8>| [other.clone(), middle.clone(), other.clone(), middle].concat();
        let changed = asking(&object(sequence(before)), found);
        assert_eq!(changed, object(sequence(after)));
        assert_eq!(asking(&changed, found), changed, "a second time");
    }
}
