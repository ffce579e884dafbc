//! `SOURCE_RANGES`: who may use a load balancer's address.

use crate::net::Ip;

/// Key of `SOURCE_RANGES`, after the length of the prefix: 32 bits of service, and the range's of the address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct SourceKey {
    /// Id of the service port.
    pub service: u32,
    /// First address of the range.
    pub address: Ip,
}

impl SourceKey {
    /// Bits of a whole key.
    pub const BITS: u32 = 32 + 128;
}

/// A row of `SOURCE_RANGES`: these sources are let in.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SourceRange {
    /// Generation of the service id: a row with another one belongs to a service port that is gone.
    pub generation: u32,
}
