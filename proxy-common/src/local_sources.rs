//! `LOCAL_SOURCES`: whose addresses are pods'.

use crate::net::Ip;
use crate::service_cidr::Cidr;

/// The one row of `LOCAL_SOURCES`: the range of each family that pods have their addresses of.
///
/// It says what a pod is only for those that come in by an interface that leads to pods. A family without a range is all
/// zero: then all that comes in by such an interface is a pod's.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LocalSources {
    /// Range of IPv4.
    pub v4: Cidr,
    /// Range of IPv6.
    pub v6: Cidr,
}

impl LocalSources {
    /// Whether an address may be a pod's.
    #[inline(always)]
    #[must_use]
    pub const fn have(&self, address: &Ip) -> bool {
        let range = if address.is_v4() { &self.v4 } else { &self.v6 };
        let mask = u128::from_ne_bytes(range.mask.bytes);
        let differ = u128::from_ne_bytes(range.first.bytes) ^ u128::from_ne_bytes(address.bytes);
        differ & mask == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_without_a_range_has_pods_only() {
        let v4 = |first: [u8; 4], host_bits: u32| Cidr {
            first: Ip::v4(first),
            mask: Ip {
                bytes: (u128::MAX << host_bits).to_be_bytes(),
            },
        };
        let six = Ip::v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        let nothing = LocalSources::default();
        assert!(nothing.have(&Ip::v4([10, 244, 1, 2])) && nothing.have(&six));
        let one = LocalSources {
            v4: v4([10, 244, 0, 0], 16),
            ..nothing
        };
        assert!(one.have(&Ip::v4([10, 244, 255, 255])) && one.have(&six));
        assert!(!one.have(&Ip::v4([10, 245, 0, 0])) && !one.have(&Ip::v4([172, 17, 0, 2])));
        let both = LocalSources {
            v6: Cidr {
                first: Ip::v6([0xfd, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
                mask: v4([0; 4], 64).mask,
            },
            ..one
        };
        assert!(!both.have(&six));
        let everybody = LocalSources {
            v4: v4([0; 4], 32),
            ..nothing
        };
        assert!(everybody.have(&Ip::v4([203, 0, 113, 1])));
    }
}
