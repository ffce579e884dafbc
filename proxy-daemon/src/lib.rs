//! What a daemon, and its commands, need of their process, whatever they do. The same for the node agent and the ingress.
//!
//! ```text
//!  flags ──▶ logging ──▶ standard error                      panics ──▶ a last line, and the end
//!  Adder ──▶ metrics ──▶ the daemon's Pages ──▶ http::Port ──▶ probes and scrapes
//! ```
//!
//! It knows no other crate of weir: what the two daemons have in common about *objects* is in `proxy-source`, with the
//! clock and the way errors read, which are needed there first.

#![forbid(unsafe_code)]

pub mod answer;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod panics;
pub mod table;
