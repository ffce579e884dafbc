//! A machine of the lab: a namespace, a cgroup, addresses, and the processes in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

use crate::process::{self, Process};
use crate::{Netns, ip};

/// A machine: a node, a pod, or a host outside. Cheap to clone; the [`crate::Lab`] owns what it stands for.
#[derive(Clone, Debug)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    netns: Netns,
    cgroup: PathBuf,
    dir: PathBuf,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    started: AtomicU32,
}

/// Where a machine's things are.
pub(crate) struct HostPaths {
    pub(crate) netns: Netns,
    pub(crate) cgroup: PathBuf,
    pub(crate) dir: PathBuf,
}

impl Host {
    pub(crate) fn new(name: &str, paths: HostPaths, v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        Self(Arc::new(Inner {
            name: name.to_owned(),
            netns: paths.netns,
            cgroup: paths.cgroup,
            dir: paths.dir,
            v4,
            v6,
            started: AtomicU32::new(0),
        }))
    }

    /// The name in the lab, such as `n1` or `web-1`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The namespace.
    pub fn netns(&self) -> &Netns {
        &self.0.netns
    }

    /// The cgroup v2 directory of the machine's processes.
    pub fn cgroup(&self) -> &Path {
        &self.0.cgroup
    }

    /// The folder for the logs of the machine's processes; goes with the lab.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// The IPv4 address.
    pub fn v4(&self) -> Ipv4Addr {
        self.0.v4
    }

    /// The IPv6 address.
    pub fn v6(&self) -> Ipv6Addr {
        self.0.v6
    }

    /// Both addresses, IPv4 first.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.0.v4.into(), self.0.v6.into()]
    }

    /// Starts a process on this machine, its output in a log file.
    pub fn spawn(&self, mut command: Command) -> Result<Process> {
        let log = self.log_path(&command);
        process::log_to(&mut command, &log)?;
        self.start(command, &log)
    }

    /// Starts a process on this machine, its standard output in a pipe and its errors in a log file.
    pub fn spawn_piped(&self, mut command: Command) -> Result<Process> {
        let log = self.log_path(&command);
        process::log_to(&mut command, &log)?;
        command.stdout(Stdio::piped());
        self.start(command, &log)
    }

    /// Starts a process on this machine with the outputs that the caller has set.
    pub fn start(&self, command: Command, log: &Path) -> Result<Process> {
        Process::start(command, &self.0.netns, &self.0.cgroup, log)
    }

    /// Runs a command on this machine to its end, and returns what it printed.
    pub fn output(&self, mut command: Command) -> Result<Output> {
        let program = command.get_program().to_string_lossy().into_owned();
        process::place(&mut command, &self.0.netns, &self.0.cgroup)?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        process::spawn(command)
            .and_then(std::process::Child::wait_with_output)
            .with_context(|| format!("cannot run {program} on {}", self.name()))
    }

    /// Runs a shell line on this machine, and returns its standard output; an error if it fails.
    pub fn sh(&self, line: &str) -> Result<String> {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        let output = self.output(command)?;
        ensure!(
            output.status.success(),
            "`{line}` on {} failed: {}{}",
            self.name(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `work` on a thread in the namespace; see [`Netns::run`].
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.0.netns.run(work)
    }

    /// Runs lines of `ip`, without the word `ip`: `route add 10.0.0.0/8 via 172.30.0.12`.
    pub fn ip(&self, lines: &str) -> Result<()> {
        ip::batch(Some(self.0.netns.name()), lines)
    }

    /// Sets kernel parameters by their `sysctl` names.
    pub fn sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.0.netns.sysctls(settings)
    }

    /// Sets the MTU of an interface on this side of its link.
    pub fn set_mtu(&self, interface: &str, mtu: u32) -> Result<()> {
        self.ip(&format!("link set {interface} mtu {mtu}\n"))
    }

    /// Turns the checksum and segmentation offloads of an interface on or off, so that packets carry what they claim.
    pub fn set_offloads(&self, interface: &str, on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        let features = ["tx", "rx", "tso", "gso", "gro"];
        let wanted: Vec<_> = features.map(|name| format!("{name} {state}")).to_vec();
        self.sh(&format!("ethtool -K {interface} {}", wanted.join(" ")))?;
        Ok(())
    }

    fn log_path(&self, command: &Command) -> PathBuf {
        let number = self.0.started.fetch_add(1, Ordering::Relaxed);
        let program = Path::new(command.get_program())
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        self.0.dir.join(format!("{}-{program}-{number}.log", self.name()))
    }
}
