//! What happens to one packet.
//!
//! Pure and `no_std`: the same functions run in the kernel (through `proxy-ebpf`), in tests, and in benchmarks.
//! They see bytes through [`Packet`] and rows through [`Tables`]; what they decide is data: a [`Verdict`], and the
//! [`rewrite::Edits`] or the [`reply::Reply`] in the [`Scratch`] memory, which one function applies.
//!
//! ```text
//! packet ─▶ parse ─▶ one of ours? ─▶ known flow? ──yes──────────────▶ rewrite ─▶ verdict
//!          parse.rs    path.rs        flow.rs │ no                   rewrite.rs  verdict.rs
//!                                             ▼                          ▲
//!                         begin.rs: service ─▶ select ─▶ source port ────┘
//!                                  service.rs  select.rs   snat.rs
//!                                           affinity.rs
//!                                        └─▶ nobody there: reply.rs (RST, ICMP)
//!
//! connect(), sendmsg() ─▶ socket.rs ─▶ service ─▶ select ─▶ another address
//! ```

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod affinity;
pub mod begin;
pub mod checksum;
pub mod crc;
pub mod flow;
mod fragment;
pub mod half_open;
mod ipv4;
pub mod keep;
pub mod packet;
pub mod parse;
pub mod path;
mod quote;
pub mod reply;
pub mod rewrite;
pub mod scratch;
pub mod sctp;
pub mod select;
pub mod service;
pub mod snat;
pub mod socket;
pub mod tables;
pub mod verdict;

pub use packet::{Packet, PacketMut};
pub use scratch::{Place, Scratch};
pub use tables::{Inserted, Route, RouteQuery, Tables};
pub use verdict::Verdict;
