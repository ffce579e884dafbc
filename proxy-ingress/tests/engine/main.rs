//! The engine on loopback: real sockets, real clients and backends, and raw bytes where those would be too polite.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and waits in real time"
)]

mod abuse;
mod access;
mod checks;
mod client_auth;
mod common;
mod drain;
mod floods;
mod forwarding;
mod http2;
mod limits;
mod metrics;
mod passthrough;
mod peers;
mod proxied;
mod tls;
mod traces;
mod upgrade;
