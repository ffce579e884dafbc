//! What the run tells its clients, and what they say: a line of JSON each.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Questions that are asked at the same time.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Batch {
    /// How long each may take.
    pub timeout_ms: u64,
    /// The questions.
    pub asks: Vec<Ask>,
}

/// Connections to one address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ask {
    /// Where to.
    pub target: SocketAddr,
    /// UDP, else TCP.
    pub udp: bool,
    /// `connect()` the UDP socket first.
    pub connected: bool,
    /// The source of each connection; port 0 is the kernel's choice.
    pub from: Vec<SocketAddr>,
}

/// What came of one connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Said {
    /// What the server said: `NAME PORT CLIENT`.
    Answer(String),
    /// `ECONNREFUSED`
    Refused,
    /// Nothing, in time.
    Silent,
    /// `EHOSTUNREACH`
    Unreachable,
    /// `ENETUNREACH`: it left the node, and nobody knows the address.
    NoRoute,
    /// Anything else.
    Other(String),
}

/// The answer of a batch: for each question, what came of each connection.
pub type Report = Vec<Vec<Said>>;
