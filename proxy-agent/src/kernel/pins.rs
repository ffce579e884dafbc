//! Where weir keeps its pinned maps and links.

use std::path::{Path, PathBuf};

use proxy_common::ABI_VERSION;

/// Default place of the BPF file system.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf";

/// The folder `<bpffs>/weir/v<ABI>` and what is in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pins {
    bpffs: PathBuf,
}

impl Pins {
    /// Pins below this BPF file system.
    pub fn new(bpffs: impl Into<PathBuf>) -> Self {
        Self { bpffs: bpffs.into() }
    }

    /// The BPF file system.
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// `<bpffs>/weir`, shared by all ABI versions.
    pub fn product(&self) -> PathBuf {
        self.bpffs.join("weir")
    }

    /// `<bpffs>/weir/v<ABI>`: maps, by their names.
    pub fn root(&self) -> PathBuf {
        self.product().join(format!("v{ABI_VERSION}"))
    }

    /// A map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// The folder of links.
    pub fn links(&self) -> PathBuf {
        self.root().join("links")
    }

    /// An empty folder: whoever holds its lock is the one that reads the ring of events.
    pub fn monitor(&self) -> PathBuf {
        self.root().join("monitor")
    }

    /// A link.
    pub fn link(&self, name: &str) -> PathBuf {
        self.links().join(name)
    }
}
