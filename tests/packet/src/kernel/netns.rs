//! The network namespace in which the kernel looks for routes.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};
use proxy_common::Ip;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::node::{Host, Port, table};

/// A namespace with the interfaces, addresses and routes of `node.rs`. It has no name and ends with this value.
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes it.
    pub fn create() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wp-{}-{number}", std::process::id());
        ip(&["netns", "add", &name], "")?;
        let made = furnish(&name);
        // The open file keeps the namespace; without a name, nothing is left behind when this process ends.
        let file = File::open(format!("/run/netns/{name}"));
        ip(&["netns", "delete", &name], "")?;
        made?;
        Ok(Self {
            file: file.context("cannot open the network namespace")?,
        })
    }

    /// Moves the calling thread into it.
    pub fn enter(&self) -> Result<()> {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .context("cannot enter the network namespace")
    }
}

fn furnish(name: &str) -> Result<()> {
    let settings = [
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
        "net.ipv6.conf.default.accept_dad=0",
        "net.ipv6.conf.default.accept_ra=0",
        "net.ipv6.conf.default.addr_gen_mode=1",
    ];
    let net = format!("--net=/run/netns/{name}");
    let arguments = [&[net.as_str(), "sysctl", "-q", "-w"][..], &settings[..]].concat();
    run(Command::new("nsenter").args(arguments), "")?;
    ip(&["-n", name, "-batch", "-"], &commands()?)
}

/// The commands of `ip` that make what `node.rs` describes.
fn commands() -> Result<String> {
    let mut lines = String::from("link set lo up\n");
    for port in Port::ALL {
        let (device, index, mtu) = (port.name(), port.index(), port.mtu());
        writeln!(
            lines,
            "link add {device} index {index} mtu {mtu} type veth peer name {device}p mtu {mtu}"
        )?;
        writeln!(lines, "link set {device} up")?;
        writeln!(lines, "link set {device}p up")?;
    }
    for v6 in [false, true] {
        let length = if v6 { "128 nodad" } else { "32" };
        for (host, port) in [
            (Host::Node, Port::Uplink),
            (Host::PodGate, Port::Pod1),
            (Host::PodGate, Port::Pod2),
            (Host::OverlayGate, Port::Overlay),
            (Host::TunnelGate, Port::Tunnel),
        ] {
            writeln!(lines, "addr add {}/{length} dev {}", host.ip(v6), port.name())?;
        }
        for (network, length, way) in table(v6) {
            let Some(way) = way else {
                // The kernel has routes to its own addresses.
                if network == Host::Lost.ip(v6) || length == 24 || length == 64 {
                    writeln!(lines, "route add unreachable {network}/{length}")?;
                }
                continue;
            };
            let port = Port::ALL
                .iter()
                .find(|port| port.index() == way.interface)
                .context("a way to nowhere")?;
            let via = |router: Ip| format!("via {router} onlink ");
            let router = way.router.map(via).unwrap_or_default();
            writeln!(
                lines,
                "route add {network}/{length} {router}dev {} src {}",
                port.name(),
                way.source
            )?;
        }
    }
    Ok(lines)
}

fn ip(arguments: &[&str], input: &str) -> Result<()> {
    run(Command::new("ip").args(arguments), input)
}

fn run(command: &mut Command, input: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}: install iproute2, procps and util-linux"))?;
    let Some(mut stdin) = child.stdin.take() else {
        bail!("no way to write to {command:?}")
    };
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}\n{input}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
