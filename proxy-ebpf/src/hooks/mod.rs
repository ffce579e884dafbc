//! The hooks, by kind.

mod socket;
mod tc;
