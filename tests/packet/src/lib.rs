//! Packets through the datapath twice: in user space on hash maps, and in the kernel by `BPF_PROG_TEST_RUN`.
//!
//! ```text
//!                 rows (node.rs)
//!            ┌─────────┴──────────┐
//!   user.rs: Memory, Frame    kernel/: the object, its maps, a network namespace with the same routes
//!            └─────────┬──────────┘
//!   packet ─▶ pair.rs: run in both, compare action, bytes, counter, route and the rows concerned
//!                      │
//!                      └─▶ laws.rs: what must hold for every packet, found out without the datapath's own code
//! ```
//!
//! `generate/` makes packets by the hundred thousand, `script/` reads them from the text files of `corpus/`.

pub mod craft;
pub mod decode;
pub mod frame;
pub mod frozen;
pub mod generate;
pub mod kernel;
pub mod laws;
pub mod masquerade;
pub mod memory;
pub mod network;
pub mod node;
pub mod objects;
pub mod pair;
pub mod random;
pub mod rival;
pub mod routes;
pub mod script;
pub mod services;
pub mod user;
