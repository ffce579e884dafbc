//! CRC32c, the checksum of SCTP (RFC 9260, appendix A): how it changes with the ports, without a look at what it covers.
//!
//! A CRC is the rest of a division of polynomials whose coefficients are bits, so it is linear: the CRC of two packets' XOR is
//! the XOR of their CRCs. What a translation changes are the first four bytes. Their XOR with the old ones, followed by zeros
//! up to the packet's length, is a product: four bytes times a power of x that the length names. All numbers are reversed, as
//! the algorithm has them: the highest bit stands for x⁰.

/// Castagnoli's polynomial.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// x⁰.
const ONE: u32 = 1 << 31;
/// x⁸: one byte.
const BYTE: u32 = ONE >> 8;

/// Powers of x⁸ for the low byte of a length, and for the high one.
const LOW: [u32; 256] = powers(BYTE);
const HIGH: [u32; 256] = powers(power_256(BYTE));

/// How the CRC of `length` bytes changes when the first four change by `difference`, their XOR read as little-endian.
#[inline(always)]
pub fn change(difference: u32, length: u16) -> u32 {
    let [high, low] = length.to_be_bytes();
    // A byte is always within its table.
    let high = HIGH.get(usize::from(high)).copied().unwrap_or(ONE);
    let low = LOW.get(usize::from(low)).copied().unwrap_or(ONE);
    multiply(multiply(difference, high), low)
}

/// The XOR of old and new ports as [`change`] takes it.
#[inline(always)]
pub const fn ports((old_source, old_destination): (u16, u16), (source, destination): (u16, u16)) -> u32 {
    let [s_a, s_b] = (old_source ^ source).to_be_bytes();
    let [d_a, d_b] = (old_destination ^ destination).to_be_bytes();
    u32::from_le_bytes([s_a, s_b, d_a, d_b])
}

/// The CRC of a few bytes, from one end to the other.
pub const fn whole(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    let mut rest = bytes;
    while let [first, more @ ..] = rest {
        crc = multiply(crc ^ *first as u32, BYTE);
        rest = more;
    }
    !crc
}

/// A product, less what the polynomial divides. Without branches, which a kernel's verifier would follow one by one.
#[inline(always)]
const fn multiply(a: u32, b: u32) -> u32 {
    let (mut a, mut b, mut product) = (a, b, 0);
    let mut bit = 0;
    while bit < 32 {
        product ^= b & 0_u32.wrapping_sub(a >> 31);
        a <<= 1;
        b = (b >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(b & 1));
        bit += 1;
    }
    product
}

const fn power_256(of: u32) -> u32 {
    let mut power = of;
    let mut squares = 0;
    while squares < 8 {
        power = multiply(power, power);
        squares += 1;
    }
    power
}

const fn powers(of: u32) -> [u32; 256] {
    let mut powers = [ONE; 256];
    let mut rest = powers.as_mut_slice();
    let mut power = ONE;
    while let [first, more @ ..] = rest {
        *first = power;
        power = multiply(power, of);
        rest = more;
    }
    powers
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const REFERENCE: ::crc::Crc<u32> = ::crc::Crc::<u32>::new(&::crc::CRC_32_ISCSI);

    proptest! {
        #[test]
        fn the_change_is_that_of_a_recount(
            old in proptest::collection::vec(any::<u8>(), 4..2000_usize),
            first: [u8; 4],
        ) {
            let mut new = old.clone();
            new[..4].copy_from_slice(&first);
            let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let length = u16::try_from(old.len()).unwrap();
            prop_assert_eq!(
                REFERENCE.checksum(&old) ^ change(word(&old) ^ word(&new), length),
                REFERENCE.checksum(&new)
            );
        }

        #[test]
        fn short_ones_are_counted_whole(bytes: Vec<u8>) {
            prop_assert_eq!(whole(&bytes), REFERENCE.checksum(&bytes));
        }
    }

    #[test]
    fn every_length_has_its_power() {
        let mut power = ONE;
        for length in 0..=u16::MAX {
            assert_eq!(change(ONE, length), power, "{length}");
            power = multiply(power, BYTE);
        }
        let mut longest = vec![0; 65_535];
        let zeros = REFERENCE.checksum(&longest);
        longest[1] = 0x50;
        assert_eq!(change(0x5000, 65_535), zeros ^ REFERENCE.checksum(&longest));
    }

    #[test]
    fn ports_stand_in_the_packet_as_on_the_wire() {
        assert_eq!(ports((0x1234, 0x5678), (0, 0)), 0x7856_3412);
        assert_eq!(ports((80, 81), (80, 81)), 0);
    }
}
