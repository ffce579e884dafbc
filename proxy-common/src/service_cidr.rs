//! `SERVICE_CIDRS`: where ClusterIPs are given out of.

use crate::net::Ip;

/// The one row of `SERVICE_CIDRS`. The ranges of a family stand at its begin; the others are zero, and have no address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServiceCidrs {
    /// Ranges of IPv4.
    pub v4: [Cidr; ServiceCidrs::MOST],
    /// Ranges of IPv6.
    pub v6: [Cidr; ServiceCidrs::MOST],
}

/// A range of addresses.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Cidr {
    /// The first address.
    pub first: Ip,
    /// The bits that all addresses have in common.
    pub mask: Ip,
}

impl ServiceCidrs {
    /// Ranges of a family that fit. Kubernetes begins with one, and grows by one at a time (KEP-1880).
    pub const MOST: usize = 4;

    /// Whether an address is in a range. Almost always there is one range, so the others are asked for by one look.
    #[inline(always)]
    #[must_use]
    pub const fn have(&self, address: &Ip) -> bool {
        if address.is_v4() {
            let [first, second, third, fourth] = &self.v4;
            first.has_v4(address)
                || (second.is_used()
                    && (second.has_v4(address) || third.has_v4(address) || fourth.has_v4(address)))
        } else {
            let [first, second, third, fourth] = &self.v6;
            first.has_v6(address)
                || (second.is_used()
                    && (second.has_v6(address) || third.has_v6(address) || fourth.has_v6(address)))
        }
    }
}

impl Cidr {
    #[inline(always)]
    const fn is_used(&self) -> bool {
        let ([a, _, _, d], _) = self.mask.bytes.as_chunks::<4>() else {
            return false;
        };
        u32::from_ne_bytes(*a) | u32::from_ne_bytes(*d) != 0
    }

    /// Of an IPv4 address only the last word differs from others.
    #[inline(always)]
    const fn has_v4(&self, address: &Ip) -> bool {
        let mask = u32::from_ne_bytes(self.mask.v4_bytes());
        let differ = u32::from_ne_bytes(self.first.v4_bytes()) ^ u32::from_ne_bytes(address.v4_bytes());
        mask != 0 && differ & mask == 0
    }

    #[inline(always)]
    const fn has_v6(&self, address: &Ip) -> bool {
        let mask = u128::from_ne_bytes(self.mask.bytes);
        let differ = u128::from_ne_bytes(self.first.bytes) ^ u128::from_ne_bytes(address.bytes);
        mask != 0 && differ & mask == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_a_range_is_in_one() {
        let v4 = |first, host_bits: u32| Cidr {
            first: Ip::v4(first),
            mask: Ip {
                bytes: (u128::MAX << host_bits).to_be_bytes(),
            },
        };
        let nothing = ServiceCidrs::default();
        assert!(!nothing.have(&Ip::v4([0; 4])) && !nothing.have(&Ip::UNSPECIFIED));
        let mut one = nothing;
        one.v4[0] = v4([10, 96, 0, 0], 20);
        assert!(one.have(&Ip::v4([10, 111, 255, 255])) && one.have(&Ip::v4([10, 96, 0, 0])));
        assert!(!one.have(&Ip::v4([10, 112, 0, 0])) && !one.have(&Ip::UNSPECIFIED));
        let mut two = one;
        two.v4[1] = v4([192, 168, 7, 0], 8);
        assert!(two.have(&Ip::v4([192, 168, 7, 9])) && two.have(&Ip::v4([10, 96, 0, 1])));
        assert!(!two.have(&Ip::v4([192, 168, 8, 9])));
        let mut six = nothing;
        six.v6[0] = Cidr {
            first: Ip::v6([0xfd, 0, 0, 0x10, 0, 0x96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            mask: v4([0; 4], 20).mask,
        };
        assert!(six.have(&Ip::v6([0xfd, 0, 0, 0x10, 0, 0x96, 0, 0, 0, 0, 0, 0, 0, 7, 7, 7])));
        assert!(!six.have(&Ip::v6([0xfd, 0, 0, 0x10, 0, 0x97, 0, 0, 0, 0, 0, 0, 0, 7, 7, 7])));
        assert!(!six.have(&Ip::v4([10, 96, 0, 1])));
    }
}
