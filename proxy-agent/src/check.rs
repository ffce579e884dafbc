//! Can weir work on this node at all? Each answer is one line that says what to do.
//!
//! Only what can be seen from outside is looked at here; what the kernel refuses is told where it is asked.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;

use crate::kernel::cgroup_root;

/// `CGROUP2_SUPER_MAGIC` of the uapi.
const CGROUP2_MAGIC: u32 = 0x6367_7270;
/// Linux 5.12 has atomic fetch operations in BPF; 5.15 is the oldest kernel with long-term support that has them.
const OLDEST_KERNEL: (u32, u32) = (5, 15);

/// Why weir cannot work here.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CheckError {
    /// Not allowed to do what it must.
    #[error("weir agent lacks {missing}: run it as root, or give it CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    Capabilities {
        /// Names of capabilities.
        missing: String,
    },
    /// Too old.
    #[error("Linux {found} is too old: weir needs {}.{} or newer", OLDEST_KERNEL.0, OLDEST_KERNEL.1)]
    Kernel {
        /// Release.
        found: String,
    },
    /// No type information.
    #[error(
        "this kernel has no /sys/kernel/btf/vmlinux: use a kernel that is built with CONFIG_DEBUG_INFO_BTF=y"
    )]
    NoBtf,
    /// The flag names something else.
    #[error("--cgroup {path} is no folder of a cgroup v2 hierarchy: name one, such as {}", example.display())]
    NotCgroup2 {
        /// As given.
        path: String,
        /// Where one is.
        example: PathBuf,
    },
    /// Somebody else does this job.
    #[error(
        "{name} balances Services on this node already ({}): switch that off, or remove what it left behind, before weir takes over",
        trace.display()
    )]
    OtherProxy {
        /// Its name.
        name: &'static str,
        /// How it shows.
        trace: PathBuf,
    },
}

/// What the checks found out on the way.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    /// The cgroup v2 folder to attach to; without one, packets are all that is served.
    pub cgroup: Option<PathBuf>,
}

/// Looks at this node, before anything is changed on it.
pub fn node(bpffs: &Path, cgroup: Option<&Path>) -> Result<Node, CheckError> {
    capabilities(&fs::read_to_string("/proc/self/status").unwrap_or_default())?;
    kernel(
        fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim(),
    )?;
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err(CheckError::NoBtf);
    }
    for root in [bpffs, Path::new(crate::kernel::DEFAULT_BPFFS)] {
        other_proxy(root)?;
    }
    if let Some(pid) = kube_proxy() {
        tracing::warn!(
            "kube-proxy (pid {pid}) runs on this node too: weir answers first, but remove kube-proxy and its rules \
             (`kube-proxy --cleanup`) when you have seen weir work"
        );
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    Ok(Node {
        cgroup: cgroup2(cgroup, &mounts)?,
    })
}

/// Reads the effective set of `/proc/self/status`; what cannot be read is not held against anybody.
fn capabilities(status: &str) -> Result<(), CheckError> {
    const ADMIN: u32 = 21;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(set) = line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()) else {
        return Ok(());
    };
    let has = |number: u32| set >> number & 1 == 1;
    let needed = [
        ("CAP_NET_ADMIN", 12, 12),
        ("CAP_BPF", 39, ADMIN),
        // Without it the verifier looks after a stranger's programs, and refuses ours.
        ("CAP_PERFMON", 38, ADMIN),
    ];
    let missing: Vec<_> = needed
        .into_iter()
        .filter(|(_, number, instead)| !has(*number) && !has(*instead))
        .map(|(name, ..)| name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(CheckError::Capabilities {
        missing: missing.join(" and "),
    })
}

fn kernel(release: &str) -> Result<(), CheckError> {
    let mut numbers = release
        .split(|letter: char| !letter.is_ascii_digit())
        .map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST_KERNEL {
        return Ok(());
    }
    Err(CheckError::Kernel {
        found: release.to_owned(),
    })
}

/// The folder that was asked for, or the root of the v2 hierarchy if one is mounted.
fn cgroup2(asked: Option<&Path>, mounts: &str) -> Result<Option<PathBuf>, CheckError> {
    let root = cgroup_root(mounts);
    let Some(path) = asked else {
        if let Some(root) = &root {
            warn_if_part(root);
        } else {
            tracing::warn!(
                "no cgroup v2 hierarchy is mounted, so the socket hooks are off: pods are served packet by packet, and \
                 processes in the node's own network (hostNetwork pods too) reach no Service; run `mount -t cgroup2 none \
                 /sys/fs/cgroup/unified`, or name one with --cgroup, and start the agent again"
            );
        }
        return Ok(root);
    };
    if statfs(path).is_ok_and(|found| found.f_type == i64::from(CGROUP2_MAGIC)) {
        return Ok(Some(path.to_owned()));
    }
    Err(CheckError::NotCgroup2 {
        path: path.display().to_string(),
        example: root.unwrap_or_else(|| "/sys/fs/cgroup".into()),
    })
}

/// A container with a cgroup namespace of its own sees its own cgroup as the root, and hooks there would serve only weir.
/// The real root has the inode number 1: numbers are given out from there.
fn warn_if_part(root: &Path) {
    if fs::metadata(root).is_ok_and(|found| found.ino() != 1) {
        tracing::warn!(
            "{} is only a part of the cgroup hierarchy, so sockets outside it are not served: run weir in the host's \
             cgroup namespace, or mount the host's /sys/fs/cgroup into the container and name it with --cgroup",
            root.display()
        );
    }
}

/// Cilium's kube-proxy replacement pins its socket programs and keeps neighbours for node ports; Calico's eBPF data
/// plane pins its Service table. Neither has these when it leaves Services to kube-proxy.
fn other_proxy(bpffs: &Path) -> Result<(), CheckError> {
    let traces = [
        (
            "Cilium's kube-proxy replacement",
            "cilium/socketlb/links/cgroup",
            "cil_",
        ),
        (
            "Cilium's kube-proxy replacement",
            "tc/globals",
            "cilium_nodeport_neigh",
        ),
        ("Calico's eBPF data plane", "tc/globals", "cali_v4_nat_fe"),
        ("Calico's eBPF data plane", "tc/globals", "cali_v6_nat_fe"),
    ];
    for (name, folder, prefix) in traces {
        let entries = fs::read_dir(bpffs.join(folder)).into_iter().flatten().flatten();
        let trace = entries.map(|entry| entry.path()).find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        });
        if let Some(trace) = trace {
            return Err(CheckError::OtherProxy { name, trace });
        }
    }
    Ok(())
}

/// The process id of a kube-proxy in our network namespace.
fn kube_proxy() -> Option<u32> {
    let own = fs::read_link("/proc/self/ns/net").ok()?;
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        let same = || fs::read_link(entry.path().join("ns/net")).is_ok_and(|net| net == own);
        (name.trim_end() == "kube-proxy" && same()).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let status = |set: u64| format!("Name:\tweir\nCapEff:\t{set:016x}\n");
        assert_eq!(capabilities(&status(u64::MAX)), Ok(()));
        assert_eq!(capabilities(&status(1 << 12 | 1 << 38 | 1 << 39)), Ok(()));
        assert_eq!(capabilities(&status(1 << 12 | 1 << 21)), Ok(()));
        let missing = capabilities(&status(1 << 12 | 1 << 38)).unwrap_err();
        assert!(missing.to_string().contains("lacks CAP_BPF:"), "{missing}");
        let missing = capabilities(&status(1 << 12 | 1 << 39)).unwrap_err();
        assert!(missing.to_string().contains("lacks CAP_PERFMON:"), "{missing}");
        let missing = capabilities(&status(0)).unwrap_err();
        assert!(
            missing
                .to_string()
                .contains("lacks CAP_NET_ADMIN and CAP_BPF and CAP_PERFMON:"),
            "{missing}"
        );
    }

    #[test]
    fn old_kernels_are_turned_away() {
        for good in ["5.15.0", "6.1.0-13-amd64", "6.18.44-fc", "10.0"] {
            assert_eq!(kernel(good), Ok(()), "{good}");
        }
        for bad in ["5.14.21-150500", "4.19", "nonsense"] {
            assert!(kernel(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_folder_of_another_file_system_is_no_cgroup() {
        for mounts in ["", "36 25 0:31 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"] {
            let refused = cgroup2(Some(Path::new("/proc")), mounts).unwrap_err();
            assert!(matches!(refused, CheckError::NotCgroup2 { .. }), "{refused}");
        }
    }

    #[test]
    fn a_node_without_cgroup_v2_is_served_without_it() {
        let v1 = "30 25 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        assert_eq!(cgroup2(None, v1), Ok(None));
    }

    #[test]
    fn other_proxies_show_by_their_pins() {
        let root = std::env::temp_dir().join(format!("weir-check-{}", std::process::id()));
        let globals = root.join("tc/globals");
        fs::create_dir_all(&globals).unwrap();
        fs::write(globals.join("cilium_lb4_services_v2"), "").unwrap();
        assert_eq!(
            other_proxy(&root),
            Ok(()),
            "Cilium beside kube-proxy has this too"
        );
        fs::write(globals.join("cali_v4_nat_fe3"), "").unwrap();
        let found = other_proxy(&root).unwrap_err().to_string();
        assert!(
            found.contains("Calico") && found.contains("cali_v4_nat_fe3"),
            "{found}"
        );
        fs::remove_dir_all(&root).unwrap();
    }
}
