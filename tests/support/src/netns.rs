//! A named network namespace.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::mount::{UnmountFlags, unmount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::ip;

/// Where `ip netns` keeps its names.
pub(crate) const NAMES: &str = "/run/netns";

/// A network namespace with a name that `ip netns` knows. The [`crate::Lab`] removes it.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: File,
}

impl Netns {
    /// Makes the namespace, with the settings that every machine of a lab has.
    pub(crate) fn create(name: &str) -> Result<Self> {
        ip::batch(None, &format!("netns add {name}\n"))?;
        let path = Path::new(NAMES).join(name);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let netns = Self {
            name: name.to_owned(),
            file,
        };
        netns.sysctls(&[
            // No waiting for duplicate addresses, and no addresses that nobody asked for.
            ("net.ipv6.conf.all.accept_dad", "0"),
            ("net.ipv6.conf.default.accept_dad", "0"),
            ("net.ipv6.conf.all.accept_ra", "0"),
            ("net.ipv6.conf.default.accept_ra", "0"),
            ("net.ipv6.conf.all.router_solicitations", "0"),
            ("net.ipv6.conf.default.router_solicitations", "0"),
        ])?;
        ip::batch(Some(name), "link set lo up\n")?;
        Ok(netns)
    }

    /// The name, as `ip netns` prints it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for the namespace, for `nsenter --net=…`.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMES).join(&self.name)
    }

    /// Runs `work` on a thread of its own inside the namespace: for sockets of this process.
    ///
    /// The thread stays in the cgroup of this process; traffic that a socket hook must see comes from a child process.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    enter(self.as_fd())?;
                    Ok(work())
                })
                .join()
                .map_err(|_| anyhow!("the thread in namespace {} panicked", self.name))?
        })
    }

    /// Sets kernel parameters of the namespace, by their `sysctl` names.
    pub fn sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (key, value) in settings {
                let path = Path::new("/proc/sys").join(key.replace('.', "/"));
                fs::write(&path, value)
                    .with_context(|| format!("cannot set {key}={value} in {}", self.name))?;
            }
            Ok(())
        })?
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Moves the calling thread into the namespace.
pub(crate) fn enter(netns: BorrowedFd<'_>) -> Result<()> {
    move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
        .context("cannot enter a network namespace")
}

/// Removes the name; the namespace goes when its last process and socket have gone.
pub(crate) fn remove(name: &str) -> Result<()> {
    let path = Path::new(NAMES).join(name);
    let _ = unmount(&path, UnmountFlags::DETACH);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
