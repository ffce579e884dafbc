//! Ones' complement arithmetic (RFC 1071, RFC 1624), in the machine's byte order: the sum does not care as long as
//! everybody loads the same way.

use proxy_common::Ip;

use crate::packet::Covers;

/// Folds a sum to 16 bits.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) as u16
}

/// Folds a sum to 32 bits, as the kernel's helpers take it.
#[inline(always)]
pub const fn fold32(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    (sum & 0xffff_ffff) as u32
}

/// Sum of the four 32-bit words of an address.
#[inline(always)]
pub const fn sum_ip(ip: &Ip) -> u64 {
    let ([first, second, third, fourth], _) = ip.bytes.as_chunks::<4>() else {
        return 0;
    };
    word(first) + word(second) + word(third) + word(fourth)
}

/// Difference when `old` becomes `new`. The equal first twelve bytes of two IPv4 addresses cancel out.
#[inline(always)]
pub const fn diff_ip(old: &Ip, new: &Ip) -> u64 {
    // The complement of a sum of four words: 4 × 0xffff_ffff, which is zero in ones' complement, less the sum.
    sum_ip(new) + (4 * 0xffff_ffff - sum_ip(old))
}

/// Difference when a 16-bit field becomes another; both in host order.
#[inline(always)]
pub const fn diff_port(old: u16, new: u16) -> u64 {
    (new.to_be() as u64) + (0xffff - old.to_be() as u64)
}

/// Difference when two bytes at an even offset become others.
#[inline(always)]
pub const fn diff_pair(old: [u8; 2], new: [u8; 2]) -> u64 {
    (u16::from_ne_bytes(new) as u64) + (0xffff - u16::from_ne_bytes(old) as u64)
}

/// Difference when four bytes at an even offset become others.
#[inline(always)]
pub const fn diff_word(old: [u8; 4], new: [u8; 4]) -> u64 {
    (u32::from_ne_bytes(new) as u64) + (0xffff_ffff - u32::from_ne_bytes(old) as u64)
}

/// Sum of bytes as 16-bit words, a last odd byte padded with zero.
#[inline(always)]
pub fn sum_bytes(bytes: &[u8]) -> u64 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut sum = 0;
    for pair in pairs {
        sum += u64::from(u16::from_ne_bytes(*pair));
    }
    if let [last] = rest {
        sum += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    sum
}

/// A checksum field after its contents changed by `diff` (RFC 1624, equation 3).
#[inline(always)]
pub const fn update(field: [u8; 2], diff: u64) -> [u8; 2] {
    // The complement of 32 bits, not 16, as the kernel's csum_replace_by_diff does: so a sum of zero stays one.
    let old = !(u16::from_ne_bytes(field) as u32);
    (!fold(old as u64 + diff)).to_ne_bytes()
}

/// A transport checksum after what the pseudo-header covers changed by one difference, and what only the datagram has by
/// another. Offloaded, it is the sum and not its complement.
#[inline(always)]
pub const fn update_transport(field: [u8; 2], (pseudo, payload): (u32, u32), covers: Covers) -> [u8; 2] {
    let complement = !covers.mask();
    let old = u16::from_ne_bytes(field) as u32 ^ complement;
    let sum = fold(old as u64 + pseudo as u64 + (payload & complement) as u64);
    (sum ^ (complement & 0xffff) as u16).to_ne_bytes()
}

#[inline(always)]
const fn word(bytes: &[u8; 4]) -> u64 {
    u32::from_ne_bytes(*bytes) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checksum field of a few words, recounted.
    fn recount(words: &[u16]) -> u16 {
        let mut sum: u32 = words.iter().map(|word| u32::from(*word)).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap_or(0)
    }

    #[test]
    fn a_difference_leads_to_the_recounted_checksum() {
        for (old, new) in [
            (80, 8080),
            (8080, 80),
            (0, 0xffff),
            (0xffff, 0),
            (1, 1),
            (0x8000, 0x7fff),
        ] {
            let field = recount(&[0x1234, 0xfedc, old]).to_be_bytes();
            let updated = u16::from_be_bytes(update(field, diff_port(old, new)));
            assert_eq!(updated, recount(&[0x1234, 0xfedc, new]), "{old} to {new}");
        }
    }

    #[test]
    fn equal_prefixes_of_two_addresses_cancel_out() {
        let (old, new) = (Ip::v4([10, 0, 0, 1]), Ip::v4([192, 168, 7, 9]));
        let field = recount(&[0x0a00, 0x0001, 0x5555]).to_be_bytes();
        let updated = u16::from_be_bytes(update(field, u64::from(fold32(diff_ip(&old, &new)))));
        assert_eq!(updated, recount(&[0xc0a8, 0x0709, 0x5555]));
    }

    #[test]
    fn an_odd_last_byte_is_padded_behind() {
        assert_eq!(fold(sum_bytes(&[1, 2, 3])), fold(sum_bytes(&[1, 2, 3, 0])));
    }
}
