//! The only part of the agent that talks to the kernel: bpf(2), the BPF file system, netlink.
//!
//! ```text
//!  load ──▶ Kernel { maps, programs }       maps: apply(step), adopt(), typed readers for the CLI
//!                       │
//!                       ▼
//!  Interfaces::start(programs) ──▶ snapshots: local addresses, what is attached where
//!  Sweeper::open(pins).run()   ──▶ walks: frontends that flows still use
//!  LeftSockets::open(pins).look() ──▶ ends sockets whose backend does not serve any more
//! ```
//!
//! Links and maps are pinned: when the agent ends, however it ends, the programs go on serving.

mod apply;
mod attach;
mod bpffs;
mod btf;
mod cgroup;
mod classify;
mod cleanup;
mod clock;
mod clsact;
mod diag;
mod events;
mod feed;
mod filtered;
mod flows;
mod inspect;
mod interfaces;
mod left;
mod links;
mod load;
mod maps;
mod network;
mod object;
mod others;
mod pins;
mod probe;
mod restore;
mod sources;
mod sys;
mod table;

pub use attach::{AttachError, Programs};
pub use bpffs::{BpffsError, running_agent};
pub(crate) use cgroup::cgroup_root;
pub use classify::{Class, PodInterfaces, Rules};
pub use cleanup::{CleanupError, cleanup};
pub use clock::monotonic_seconds;
pub use events::EventReader;
pub use flows::{SWEEP_INTERVAL, Sweeper, Walk};
pub use inspect::{Fill, Flows};
pub use interfaces::{Interface, Interfaces, Snapshot};
pub use left::{LeftSockets, Look, LookError};
pub use load::{Kernel, KernelLog, LoadError, Options, load};
pub use maps::{MapError, Maps, OpenError};
pub use network::Sources;
pub use object::for_this_kernel;
pub use pins::{DEFAULT_BPFFS, Pins};
pub use probe::Features;
