//! What the agent writes into the kernel object's instructions before the kernel sees them.
//!
//! How a packet's transport checksum stands (`skb->ip_summed`) is not in `__sk_buff`. Kernels from 6.2 on hand out the kernel's
//! own structure (`bpf_cast_to_kern_ctx`, commit fd264ca02094), where a program may read it. Both the number of that function
//! and the place in the structure are this kernel's, so the object has a sequence of instructions that says "unknown", and
//! the agent makes it ask if it finds out how.

/// Begins each such sequence: `r5 = MARK`.
pub const IP_SUMMED_MARK: i32 = i32::from_be_bytes(*b"weir");
/// Where the two bits of `ip_summed` are in their byte, in every kernel so far: behind `pkt_type` and two flags.
pub const IP_SUMMED_SHIFT: u32 = 5;
