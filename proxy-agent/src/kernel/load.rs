//! Loads the kernel object, with the maps of an earlier agent if there are any.

use std::path::PathBuf;

use super::attach::Programs;
use super::maps::{MapError, Maps, OpenError};
use super::pins::Pins;

/// What the programs log; off costs nothing, because the verifier removes the branches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum KernelLog {
    /// Nothing.
    #[default]
    Off = 0,
    /// Errors.
    Error = 1,
    /// And warnings.
    Warn = 2,
    /// And information.
    Info = 3,
    /// And details.
    Debug = 4,
    /// And every step.
    Trace = 5,
}

/// What to load, and where to.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where maps and links are pinned.
    pub pins: Pins,
    /// The cgroup v2 folder of the socket hooks; `None` is the root of the v2 hierarchy.
    pub cgroup: Option<PathBuf>,
    /// The kernel object, for a build that does not carry one.
    pub object: Option<PathBuf>,
    /// What the programs log.
    pub log: KernelLog,
}

/// What this kernel can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features {
    /// `BPF_FIB_LOOKUP_SRC` (Linux 6.7).
    pub fib_source: bool,
    /// `BPF_F_IPV6` of `bpf_l4_csum_replace` (Linux 6.16).
    pub checksum_ipv6_flag: bool,
    /// TCX links (Linux 6.6); clsact filters take their place before.
    pub tcx: bool,
}

/// Why the kernel side cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Built without `embed`, and no path given.
    #[error(
        "this build of weir carries no kernel object: build with `cargo xtask build`, or name one with WEIR_BPF_OBJECT"
    )]
    NoObject,
    /// The maps.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A row of `META` or `CONFIG`.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// The kernel side of a running agent.
pub struct Kernel {
    /// The maps, for the main loop.
    pub maps: Maps,
    /// The programs, for [`super::Interfaces::start`].
    pub programs: Programs,
    /// What this kernel can do.
    pub features: Features,
    /// Whether maps of an earlier agent were adopted.
    pub adopted: bool,
}

/// Loads the object and attaches the socket hooks. Takes the lock on the pins, which is held until the process ends.
///
/// Must be called inside a tokio runtime.
pub fn load(options: &Options) -> Result<Kernel, LoadError> {
    let _ = Maps::open(&options.pins)?;
    Err(LoadError::NoObject)
}
