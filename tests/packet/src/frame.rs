//! A packet in a vector, changed with exactly the kernel's arithmetic.

use proxy_datapath::packet::{ChecksumFix, Covers};
use proxy_datapath::{Packet, PacketMut};

/// The bytes of a packet, as `data..data_end` shows them to a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Payload of each segment, if it is a GSO packet.
    pub segment: u32,
    /// What the transport checksum covers, if the kernel says it.
    pub covers: Option<Covers>,
}

impl Frame {
    /// Overwrites bytes; `None` if the packet ends before.
    pub fn write(&mut self, at: usize, bytes: &[u8]) -> Option<()> {
        let end = at.checked_add(bytes.len())?;
        self.bytes.get_mut(at..end)?.copy_from_slice(bytes);
        Some(())
    }

    /// `bpf_l4_csum_replace` with `from` 0, on a packet whose checksum is not offloaded.
    pub fn replace_checksum(&mut self, at: usize, diff: u32, mark_mangled_zero: bool) -> Option<()> {
        if at > 0xffff || !at.is_multiple_of(2) {
            return None;
        }
        let field: [u8; 2] = self.load::<2>(at)?;
        if mark_mangled_zero && field == [0, 0] {
            return Some(());
        }
        let mut changed = replace_by_diff(field, diff);
        if mark_mangled_zero && changed == [0, 0] {
            changed = [0xff, 0xff];
        }
        self.store(at, changed)
    }
}

/// `csum_replace_by_diff`: `csum_fold(csum_add(diff, ~csum_unfold(field)))`.
fn replace_by_diff(field: [u8; 2], diff: u32) -> [u8; 2] {
    let unfolded = u32::from(u16::from_ne_bytes(field));
    let (sum, carry) = diff.overflowing_add(!unfolded);
    let sum = sum + u32::from(carry);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let [a, b, c, d] = folded.to_ne_bytes();
    let low = if cfg!(target_endian = "little") {
        [a, b]
    } else {
        [c, d]
    };
    (!u16::from_ne_bytes(low)).to_ne_bytes()
}

impl Packet for Frame {
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let end = at.checked_add(N)?;
        self.bytes.get(at..end)?.try_into().ok()
    }

    fn segment(&self) -> u32 {
        self.segment
    }
}

impl PacketMut for Frame {
    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        self.write(at, &bytes)
    }

    fn covers(&self) -> Option<Covers> {
        self.covers
    }

    /// No device has looked at a vector.
    fn fix_device_sum(&mut self, _diff: u32) {}

    fn fix_checksum(&mut self, fix: ChecksumFix) -> Option<()> {
        if fix.pseudo != 0 {
            self.replace_checksum(fix.at, fix.pseudo, fix.udp)?;
        }
        if fix.payload != 0 {
            self.replace_checksum(fix.at, fix.payload, fix.udp)?;
        }
        Some(())
    }
}
