//! Traffic for tests: servers that say who they are, and clients that count who answered.
//!
//! The program `weir-lab-peer` is made of it. It runs as a child process, because the socket hooks see the cgroup of
//! the process that makes a socket.
//!
//! TCP: the server greets each connection with `NAME CLIENT-ADDRESS`, then answers each line with `NAME LINE`.
//! UDP: it answers each datagram with `NAME CLIENT-ADDRESS PAYLOAD`.

pub mod connect;
mod hold;
mod report;
pub mod serve;
mod socket;

pub use report::{Errors, Latency, Report};

/// What a server prints when it listens.
pub const READY: &str = "ready";
