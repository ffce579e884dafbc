//! Every scenario file on the maps of the real kernel: what the agent writes and reads back there is what the files say.
//!
//! Wants root and the kernel object. Only maps are made, new ones for each file; no program is loaded or attached.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aya::EbpfLoader;
use proxy_agent::kernel::{Maps, Pins};
use proxy_model::{Adopted, Step};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use weir_lab::{require_root, workspace_root};
use weir_scenario::{Case, Kernel, files, run};

/// The maps of the kernel, as the agent uses them.
struct RealKernel {
    maps: Maps,
    /// What was read since the last step: nobody else writes, and reading takes long.
    read: Option<Adopted>,
}

impl RealKernel {
    /// Empty maps that nobody else sees: pinned to a BPF file system that is gone before this returns.
    fn new(object: &[u8], folder: &Path) -> Result<Self> {
        mount("bpf", folder, "bpf", MountFlags::empty(), None).context("cannot mount a bpffs")?;
        let made = Self::pinned(object, &Pins::new(folder));
        unmount(folder, UnmountFlags::DETACH).context("cannot unmount the bpffs")?;
        made
    }

    fn pinned(object: &[u8], pins: &Pins) -> Result<Self> {
        std::fs::create_dir_all(pins.root())?;
        EbpfLoader::new()
            .default_map_pin_directory(pins.root())
            .load(object)
            .context("the kernel refuses the maps")?;
        Ok(Self {
            maps: Maps::open(pins)?,
            read: None,
        })
    }
}

impl Kernel for RealKernel {
    fn apply(&mut self, step: &Step) -> Result<(), String> {
        self.read = None;
        self.maps.apply(step).map_err(|error| error.to_string())
    }

    fn rows(&mut self) -> Result<Adopted, String> {
        if self.read.is_none() {
            self.read = Some(self.maps.adopt().map_err(|error| error.to_string())?);
        }
        Ok(self.read.clone().unwrap_or_default())
    }
}

/// Path of the kernel object: `WEIR_BPF_OBJECT`, or where `cargo xtask build` puts it.
fn object() -> PathBuf {
    env::var_os("WEIR_BPF_OBJECT").map_or_else(|| workspace_root().join("target/weir.bpf.o"), PathBuf::from)
}

/// The object; `None`, said aloud, if the test cannot run here.
fn object_if_possible() -> Option<Vec<u8>> {
    if !require_root() {
        return None;
    }
    let path = object();
    match std::fs::read(&path) {
        Ok(object) => Some(object),
        Err(error) => {
            let reason = format!(
                "no kernel object at {} ({error}): run `cargo xtask build`, or name one in WEIR_BPF_OBJECT",
                path.display()
            );
            let required = env::var("REQUIRE_ROOT").is_ok_and(|value| value == "1");
            assert!(!required, "REQUIRE_ROOT=1, but {reason}");
            // Straight to the file, because the test harness keeps what `eprintln!` says to itself.
            let _ = writeln!(std::io::stderr(), "SKIP: {reason}");
            None
        }
    }
}

#[test]
fn every_case_holds_on_the_real_kernel() {
    let Some(object) = object_if_possible() else {
        return;
    };
    let folder = env::temp_dir().join(format!("weir-scenario-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let mut wrong = Vec::new();
    for path in files() {
        let case = Case::read(&path).unwrap_or_else(|error| panic!("{error}"));
        match RealKernel::new(&object, &folder) {
            Ok(mut kernel) => wrong.extend(run(&case, &mut kernel).err().map(|failure| failure.to_string())),
            Err(error) => wrong.push(format!("{}: {error:#}", path.display())),
        }
    }
    std::fs::remove_dir(&folder).unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
