//! The ABI: its version, the size of every row, and the promise that rows are plain bytes.

/// Version of the pinned layout; part of the pin path. Any change of a row, or of what it means, needs a new one.
pub const ABI_VERSION: u32 = 1;

/// Declares an enum whose rows are stored as a byte, with the checked way back.
macro_rules! byte_enum {
    (
        $(#[$doc:meta])*
        pub enum $name:ident { $( $(#[$variant_doc:meta])* $variant:ident = $value:literal, )+ }
    ) => {
        $(#[$doc])*
        #[repr(u8)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name { $( $(#[$variant_doc])* $variant = $value, )+ }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The byte in a row.
            #[inline(always)]
            pub const fn code(self) -> u8 {
                match self { $( Self::$variant => $value, )+ }
            }

            /// The value of a byte in a row; `None` if a row of another version or a damaged one has it.
            #[inline(always)]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $( $value => Some(Self::$variant), )+ _ => None }
            }

            /// The name as it stands here.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => stringify!($variant), )+ }
            }
        }
    };
}
pub(crate) use byte_enum;

/// Asserts a row's size and, in user space, lets aya treat it as bytes.
macro_rules! rows {
    ($( $row:ty = $size:literal, )+) => {
        $(
            const _: () = assert!(size_of::<$row>() == $size, "no padding, no surprise");

            #[cfg(feature = "user")]
            #[expect(unsafe_code, reason = "aya asks for this promise, and this file is where the layout is checked")]
            // SAFETY: the row is `repr(C)`, `Copy`, made of integers and byte arrays only, and the assertion above
            // shows that it has no padding, so every bit pattern is valid and every byte is initialised.
            unsafe impl aya::Pod for $row {}
        )+
    };
}

use crate::{
    Address, Affinity, AffinityBackend, AffinityKey, Backend, BackendState, Clock, Cursor, Event, FilterWord,
    Flow, FlowKey, Fragment, FragmentKey, InterfaceUse, Ip, LocalSources, Meta, MonitorLease, NodeConfig,
    PortWord, Service, ServiceCidrs, ServiceKey, ServiceName, Socket, SocketKey, SourceKey, SourceRange,
};

rows! {
    Ip = 16,
    Address = 4,
    FilterWord = 16,
    ServiceCidrs = 256,
    LocalSources = 64,
    InterfaceUse = 4,
    ServiceKey = 20,
    Service = 32,
    Clock = 16,
    Cursor = 64,
    ServiceName = 200,
    Backend = 32,
    BackendState = 16,
    AffinityKey = 24,
    Affinity = 12,
    AffinityBackend = 36,
    FlowKey = 40,
    Flow = 96,
    FragmentKey = 40,
    Fragment = 8,
    SocketKey = 32,
    Socket = 32,
    PortWord = 8,
    SourceKey = 20,
    SourceRange = 4,
    NodeConfig = 56,
    Meta = 16,
    MonitorLease = 8,
    Event = 80,
}
