//! What stands behind an ingress, and in front of it, in tests and in the demo.
//!
//! ```text
//!  weir-web load ──HTTP/1.1, h2, gRPC, WebSocket──▶ weir-ingress ──▶ weir-web serve, which says its name
//!       └──▶ a Report: who answered, which certificates were shown, what failed and why
//! ```

pub mod client;
pub mod load;
pub mod report;
pub mod serve;

/// Message of a call: not compressed, four bytes.
pub const CALL: &[u8] = &[0, 0, 0, 0, 4, b'p', b'i', b'n', b'g'];
