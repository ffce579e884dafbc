//! What is to happen to a packet.

use proxy_common::Reason;

/// What is to happen to a packet, and why: the reason is what `COUNTERS` counts.
#[must_use = "a dropped verdict lets the packet through unchanged"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Not weir's: on through the stack, not counted.
    Ignore,
    /// On through the stack, unchanged.
    Pass(Reason),
    /// Apply the edits, then on through the stack.
    Translate(Reason),
    /// Apply the edits, then out by the route.
    Redirect(Reason),
    /// Send the reply back out of the interface that the packet came in by.
    Reply(Reason),
    /// Gone.
    Drop(Reason),
}

impl Verdict {
    /// What is counted.
    #[inline(always)]
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Ignore => None,
            Self::Pass(reason)
            | Self::Translate(reason)
            | Self::Redirect(reason)
            | Self::Reply(reason)
            | Self::Drop(reason) => Some(reason),
        }
    }
}
