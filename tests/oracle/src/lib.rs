//! kube-proxy as an oracle: random Services, and the same probes at a node with kube-proxy and a node with weir.
//!
//! ```text
//! number ─▶ state ─▶ objects ─▶ API server ─┬▶ kube-proxy ─ node n1 ◀─ probes ─┐
//!             └────▶ probes                 └▶ weir ─────── node n1 ◀─ probes ─┴▶ compare ◀─ expected.toml
//! ```
//!
//! The two nodes are in two worlds that are alike to the last address ([`places`]), so what is asked in one can be
//! asked in the other, and the answers must be the same. What is random depends on the state's number alone.

pub mod api;
pub mod client;
pub mod compare;
pub mod dice;
pub mod expected;
pub mod generate;
pub mod marker;
pub mod objects;
pub mod outcome;
pub mod places;
pub mod probes;
pub mod run;
pub mod serve;
pub mod service;
pub mod state;
pub mod wire;
pub mod world;
