//! The node agent and inspection tool of weir: everything that touches the world.
//!
//! ```text
//!  proxy-source ──changes──▶ run.rs ──▶ proxy-model ──steps──▶ apply.rs ──▶ kernel/ ──rows──▶ maps ──▶ cli/
//! ```

pub mod apply;
pub mod check;
pub mod cli;
pub mod config;
pub mod health;
pub mod http;
pub mod kernel;
pub mod leaving;
pub mod logging;
pub mod metrics;
pub mod problems;
pub mod run;
pub mod source_ports;
pub mod telemetry;

pub use proxy_source::{clock, error};
