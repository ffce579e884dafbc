//! What the benchmarks share: rounds in turn, medians and how sure they are, and the machine that it all runs on.

pub mod machine;
pub mod rounds;
pub mod stats;
