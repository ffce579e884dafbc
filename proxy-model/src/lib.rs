//! What the node should do: Kubernetes objects in, ordered steps out. Pure: no IO, no clock, no randomness.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod api;
pub mod model;
pub mod object;
pub mod plan;

pub use model::{Adopted, Change, Limits, LocalAddress, Model, NO_NODE_PORTS, Options, Summary};
pub use object::{DecodeError, Kind, Object, ObjectName, Problem};
pub use plan::Step;
