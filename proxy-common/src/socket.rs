//! `SOCKETS`: what the socket hook told a socket, so that it can be told the same again. `BACKEND_PORTS`: whether there can
//! be such a row. `SHARED_PORTS`: what the hook leaves to the packet path.

use crate::net::Ip;

/// Key of `SOCKETS`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SocketKey {
    /// The kernel's cookie of the socket, unique until reboot.
    pub cookie: u64,
    /// `ToService`: the frontend. `FromBackend`: the backend.
    pub address: Ip,
    /// Port of `address`, host order.
    pub port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// A [`crate::Direction`].
    pub direction: u8,
    /// Always zero.
    pub reserved: u32,
}

/// A row of `SOCKETS`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Socket {
    /// `ToService`: the backend; unspecified if datagrams to the frontend are left to the packet path.
    /// `FromBackend`: the frontend.
    pub address: Ip,
    /// Port of `address`, host order.
    pub port: u16,
    /// Always zero.
    pub reserved: u16,
    /// Id of the service port.
    pub service: u32,
    /// Key of `BACKEND_STATE`.
    pub backend_id: u32,
    /// Generation of `backend_id` when the row was made.
    pub backend_generation: u32,
}

/// A row of `BACKEND_PORTS` or `SHARED_PORTS`: a bit for each of 64 ports.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortWord {
    /// The bits.
    pub bits: u64,
}

/// Where a port stands in `BACKEND_PORTS` and `SHARED_PORTS`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PortBit {
    /// Index of the row.
    pub word: u32,
    /// The bit in it.
    pub mask: u64,
}

impl PortBit {
    /// The bit of a port, host order.
    #[inline(always)]
    pub const fn of(port: u16) -> Self {
        Self {
            word: (port >> 6) as u32,
            mask: 1 << (port & 63),
        }
    }
}
