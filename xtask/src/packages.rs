//! Commands that come from Debian packages: installed where that is possible, named where it is not.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::shell;

/// Command → Debian package. A command that is in no search path is given with its folder.
const PACKAGES: &[(&str, &str)] = &[
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("bpftool", "bpftool"),
    ("busybox", "busybox-static"),
    ("cc", "gcc"),
    ("chrt", "util-linux"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("curl", "curl"),
    ("dig", "bind9-dnsutils"),
    ("ethtool", "ethtool"),
    ("g++", "g++"),
    ("go", "golang-go"),
    ("h2load", "nghttp2-client"),
    ("haproxy", "haproxy"),
    ("ip", "iproute2"),
    ("iperf", "iperf"),
    ("iptables", "iptables"),
    ("nc.openbsd", "netcat-openbsd"),
    ("nft", "nftables"),
    ("nginx", "nginx"),
    ("nsenter", "util-linux"),
    ("ping", "iputils-ping"),
    ("runc", "runc"),
    ("strace", "strace"),
    ("taskset", "util-linux"),
    ("tc", "iproute2"),
    ("tcpdump", "tcpdump"),
    ("wget", "wget"),
    ("wrk", "wrk"),
];

/// Sees to it that these commands exist.
pub(crate) fn need(commands: &[&str]) -> Result<()> {
    let missing = missing(commands);
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !is_root() || !Path::new("/etc/debian_version").exists() {
        bail!("commands are missing: on Debian, `sudo apt-get install {names}` brings them");
    }
    eprintln!("x: installing Debian packages: {names}");
    shell::run(&mut shell::command("apt-get", ["update", "-qq"]))?;
    let mut install = shell::command("apt-get", ["install", "-y", "-qq", "--no-install-recommends"]);
    shell::run(install.args(&missing).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Packages of those commands that are not there.
pub(crate) fn missing(commands: &[&str]) -> Vec<&'static str> {
    let mut missing: Vec<_> = PACKAGES
        .iter()
        .filter(|(command, _)| commands.contains(command) && find(command).is_none())
        .map(|(_, package)| *package)
        .collect();
    missing.dedup();
    missing
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The search path, with the folders where Debian keeps administrators' commands.
pub(crate) fn search_path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

/// Where a command is.
pub(crate) fn find(command: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path())
        .map(|folder| folder.join(command))
        .find(|path| path.is_file())
}
