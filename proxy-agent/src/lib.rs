//! The node agent and inspection tool of weir: all that does IO.

pub mod kernel;
