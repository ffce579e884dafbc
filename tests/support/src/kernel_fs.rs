//! The file systems of the kernel that a lab needs: cgroup v2 and bpffs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::clock;

/// Where labs keep their logs, manifests and mounts.
pub(crate) const RUN: &str = "/run/weir-lab";

/// Where labs keep what is too big for the memory that `/run` usually is.
pub(crate) const DISK: &str = "/var/lib/weir-lab";

/// The mount point of the cgroup v2 hierarchy, mounted by us if nobody did.
pub(crate) fn cgroup2_root() -> Result<PathBuf> {
    if let Some(path) = mount_points()?.into_iter().find(|mount| mount.kind == "cgroup2") {
        return Ok(path.path);
    }
    // Shared by all labs of the machine, therefore never unmounted: another lab may be using it.
    let scratch = Path::new(RUN).join("cgroup2");
    fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    mount("cgroup2", &scratch, "cgroup2", MountFlags::empty(), None)
        .context("no cgroup2 hierarchy is mounted, and it cannot be mounted here")?;
    Ok(scratch)
}

/// The mount points of all cgroup hierarchies, version 2 first.
pub(crate) fn cgroup_roots() -> Result<Vec<PathBuf>> {
    let mut roots = vec![cgroup2_root()?];
    roots.extend(cgroup1_roots()?);
    Ok(roots)
}

/// The mount points of the cgroup v1 hierarchies, usually one for each controller; none on most machines of today.
pub(crate) fn cgroup1_roots() -> Result<Vec<PathBuf>> {
    let mounts = mount_points()?.into_iter();
    Ok(mounts
        .filter(|mount| mount.kind == "cgroup")
        .map(|mount| mount.path)
        .collect())
}

/// Makes a directory in a cgroup v1 hierarchy, and those above it, so that processes can be put into it.
pub(crate) fn make_cgroup1(root: &Path, path: &Path) -> Result<()> {
    let mut dir = root.to_owned();
    for part in path {
        let above = dir.clone();
        dir.push(part);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        // A cpuset begins empty and takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = fs::read_to_string(above.join(file)) {
                fs::write(dir.join(file), all.trim())
                    .with_context(|| format!("cannot set {file} of {}", dir.display()))?;
            }
        }
        if dir.join("cgroup.clone_children").exists() {
            let _ = fs::write(dir.join("cgroup.clone_children"), "1");
        }
    }
    Ok(())
}

/// Mounts a bpffs of its own on `path`.
pub(crate) fn mount_bpffs(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
    mount("bpf", path, "bpf", MountFlags::empty(), None)
        .with_context(|| format!("cannot mount a bpffs on {}", path.display()))
}

/// Unmounts all that is mounted below `path`, and removes it.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let mut below: Vec<_> = mount_points()?
        .into_iter()
        .filter(|mount| mount.path.starts_with(path))
        .collect();
    // The last mounted goes first.
    below.reverse();
    for mount in below {
        unmount(&mount.path, UnmountFlags::DETACH)
            .with_context(|| format!("cannot unmount {}", mount.path.display()))?;
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Kills every process in the cgroup `path` and below it, and removes the cgroup.
pub(crate) fn remove_cgroup(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    // Linux 5.14 has a file for it; before, one signal each.
    if fs::write(path.join("cgroup.kill"), "1").is_err() {
        for pid in processes_below(path) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    // A killed process leaves its cgroup when it has ended, a moment later.
    if clock::wait_until(Duration::from_secs(5), || remove_cgroup_dirs(path)) {
        return Ok(());
    }
    bail!(
        "cannot remove the cgroup {}: processes still in it: {:?}",
        path.display(),
        processes_below(path)
    )
}

/// Removes the directory and those below it, innermost first; whether it is gone.
fn remove_cgroup_dirs(path: &Path) -> bool {
    for child in children(path) {
        remove_cgroup_dirs(&child);
    }
    fs::remove_dir(path).is_ok() || !path.exists()
}

fn processes_below(path: &Path) -> Vec<rustix::process::Pid> {
    let own = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let mut all: Vec<_> = own
        .lines()
        .filter_map(|line| rustix::process::Pid::from_raw(line.parse().ok()?))
        .collect();
    for child in children(path) {
        all.extend(processes_below(&child));
    }
    all
}

/// The directories directly in `path`.
pub(crate) fn children(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

struct MountPoint {
    path: PathBuf,
    kind: String,
}

fn mount_points() -> Result<Vec<MountPoint>> {
    let text = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    Ok(text.lines().filter_map(mount_point).collect())
}

fn mount_point(line: &str) -> Option<MountPoint> {
    let mut words = line.split(' ').skip(1);
    let path = words.next()?;
    let kind = words.next()?;
    Some(MountPoint {
        path: PathBuf::from(path),
        kind: kind.to_owned(),
    })
}
