//! `AFFINITY` and `AFFINITY_BACKENDS`: whom a client sticks to, and to whom clients may stick.

use crate::backend::Backend;
use crate::layout::byte_enum;
use crate::net::Ip;

byte_enum! {
    /// Which of a service port's backends a frontend offers to a client.
    pub enum BackendSet {
        /// All that are usable anywhere in the cluster.
        Cluster = 0,
        /// Those on this node.
        Local = 1,
    }
}

/// Key of `AFFINITY`: a client of a service port, whichever of its frontends it uses.
///
/// A client has a row for each set: who is sent to the one set may meet none of its backends in the other.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct AffinityKey {
    /// Address of the client; [`Ip::UNSPECIFIED`] for the processes of this node, whatever address they send from.
    pub client: Ip,
    /// Id of the service port.
    pub service: u32,
    /// A [`BackendSet`]; the other one is this one `^ 1`.
    pub set: u32,
}

/// A row of `AFFINITY`.
///
/// The first two fields are one word, which changes as a whole: of several CPUs that send a client elsewhere, one wins.
/// The generation follows a moment later, so it is not asked of a row that is younger than a second.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Affinity {
    /// Key of `AFFINITY_BACKENDS`.
    pub backend_id: u32,
    /// Monotonic seconds of the client's last new connection.
    pub last_seen: u32,
    /// Generation of `backend_id` when the client was sent there first.
    pub backend_generation: u32,
}

/// A row of `AFFINITY_BACKENDS`, keyed by backend id: a backend to which clients may stick.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AffinityBackend {
    /// The same as in its slot of `BACKENDS`.
    pub backend: Backend,
    /// 1 if it is usable for the clients of the whole cluster's set.
    pub in_cluster: u8,
    /// 1 if it is usable for the clients of this node's set.
    pub in_local: u8,
    /// Always zero.
    pub reserved: u16,
}
