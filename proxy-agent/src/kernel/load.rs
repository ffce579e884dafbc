//! Loads the kernel object, with the maps of an earlier agent if there are any.
//!
//! ```text
//!  lock the pins ─▶ check what is pinned ─▶ load object, adopt or make maps ─▶ CONFIG, META ─▶ attach socket hooks
//!                       (nothing is trusted before)                           (only if different)
//! ```

use std::borrow::Cow;
use std::io;
use std::net::UdpSocket;
use std::path::PathBuf;

use aya::maps::MapInfo;
use aya::programs::ProgramError;
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use proxy_common::{ABI_VERSION, Meta, maps as names};
use proxy_model::NO_NODE_PORTS;
use proxy_model::source_ports::PortRange;

use super::attach::{AttachError, Programs};
use super::bpffs::{self, BpffsError};
use super::maps::{MapError, Maps, OpenError, SHAPES, open_error};
use super::object::for_this_kernel;
use super::others;
use super::pins::Pins;
use super::probe::{self, Features};
use super::sys;

/// `CLOCK_MONOTONIC`, in `Meta::clock`.
const CLOCK_MONOTONIC_SECONDS: u32 = 1;

/// The object's constant that lets it call `bpf_set_retval`.
const HAVE_SET_RETVAL: &str = "HAVE_SET_RETVAL";

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
    /// The cgroup v2 folder of the socket hooks; there are none without it.
    pub cgroup: Option<PathBuf>,
    /// The kernel object, instead of the one that this build carries.
    pub object: Option<PathBuf>,
    /// What the programs log.
    pub log: KernelLog,
    /// Use clsact filters even where TCX works.
    pub no_tcx: bool,
    /// Source ports of SNAT.
    pub snat_ports: PortRange,
    /// Whether ports that a load balancer's address does not have are rejected.
    pub reject_vip_ports: bool,
    /// Whether ClusterIPs are served to who comes from outside of the cluster.
    pub external_cluster_ips: bool,
}

/// Why the kernel side cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Built without `embed`, and no path given.
    #[error(
        "this build of weir carries no kernel object: build with `cargo xtask build`, or name one with WEIR_BPF_OBJECT"
    )]
    NoObject,
    /// The named object cannot be read.
    #[error("cannot read the kernel object {path}: {source}; WEIR_BPF_OBJECT names it")]
    Object {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The BPF file system.
    #[error(transparent)]
    Bpffs(#[from] BpffsError),
    /// The pinned maps.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A row of `META` or `CONFIG`.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The maps are of another ABI or clock.
    #[error(
        "the maps in {path} say {property} {found}, and this build of weir wants {wanted}: \
         another version made them; run `weir cleanup`, and start again"
    )]
    Meta {
        /// The folder.
        path: PathBuf,
        /// What is different.
        property: &'static str,
        /// As it is.
        found: u32,
        /// As it should be.
        wanted: u32,
    },
    /// The maps belong to another node on this machine.
    #[error(
        "the maps in {path} belong to another network namespace: run the agent in the namespace of its node, give each \
         node its own --bpffs, or run `weir cleanup` if that node is gone"
    )]
    OtherNode {
        /// The folder.
        path: PathBuf,
    },
    /// This node is served already.
    #[error(
        "another weir serves this network namespace, with its maps in {place}: a node has one; end that agent and run \
         `weir cleanup --bpffs {place}`, or give this one the same --bpffs"
    )]
    Another {
        /// Its BPF file system, or how to find its maps.
        place: String,
    },
    /// Something that the kernel does not let us ask.
    #[error(
        "cannot {what}: {source}; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, on Linux 5.15 or newer"
    )]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The object is not what this agent wants, or the kernel does not take it.
    #[error("cannot load the kernel object: {0}")]
    Ebpf(String),
    /// One program.
    #[error("the kernel{kernel} refuses the program {name}: {reason}")]
    Program {
        /// Its name.
        name: &'static str,
        /// Version of the kernel.
        kernel: String,
        /// Its answer, with the end of the verifier's log.
        reason: String,
    },
    /// Attaching.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// The kernel side of a running agent.
pub struct Kernel {
    /// The maps, for the main loop. The lock on the pins goes with them.
    pub maps: Maps,
    /// The programs, for [`super::Interfaces::start`].
    pub programs: Programs,
    /// What this kernel can do.
    pub features: Features,
    /// Whether maps of an earlier agent were adopted.
    pub adopted: bool,
}

/// Loads the object and attaches the socket hooks. Takes the lock on the pins, which goes with [`Maps`].
///
/// Must be called inside a tokio runtime.
pub fn load(options: &Options) -> Result<Kernel, LoadError> {
    let object = for_this_kernel(object(options)?);
    let pins = &options.pins;
    let lock = bpffs::prepare(pins)?;
    let cookie = netns_cookie()?;
    let adopted = check_pinned(pins, cookie)?;
    others::check(pins, cookie, adopted)?;
    let features = features(options)?;

    let mut ebpf = EbpfLoader::new()
        .override_global(aya_log::LEVEL, &(options.log as u8), false)
        .override_global(HAVE_SET_RETVAL, &u8::from(features.set_retval), false)
        .default_map_pin_directory(pins.root())
        .load(&object)
        .map_err(|error| ebpf_error(pins, error))?;
    let mut maps = Maps::open(pins)?;
    // Before any program of this build is attached: it would take a filter without bits for a node without Services.
    maps.addresses.restore()?;
    configure(&mut maps, features, cookie, options)?;
    forward_logs(&mut ebpf, options.log);
    maps.lock = Some(lock);

    let mut programs = Programs::load(ebpf, pins.clone(), features.tcx)?;
    if let Some(cgroup) = &options.cgroup {
        programs.attach_cgroup(cgroup.clone())?;
    }
    Ok(Kernel {
        maps,
        programs,
        features,
        adopted,
    })
}

/// The named object, or the one inside this build.
fn object(options: &Options) -> Result<Cow<'static, [u8]>, LoadError> {
    if let Some(path) = &options.object {
        return std::fs::read(path)
            .map(Cow::Owned)
            .map_err(|source| LoadError::Object {
                path: path.clone(),
                source,
            });
    }
    #[cfg(feature = "embed")]
    {
        Ok(Cow::Borrowed(aya::include_bytes_aligned!(env!(
            "WEIR_BPF_OBJECT"
        ))))
    }
    #[cfg(not(feature = "embed"))]
    {
        Err(LoadError::NoObject)
    }
}

pub(super) fn netns_cookie() -> Result<u64, LoadError> {
    UdpSocket::bind(("127.0.0.1", 0))
        .or_else(|_| UdpSocket::bind(("::1", 0)))
        .and_then(sys::netns_cookie)
        .map_err(|source| LoadError::Kernel {
            what: "read the cookie of the network namespace",
            source,
        })
}

fn features(options: &Options) -> Result<Features, LoadError> {
    let mut features = probe::probe().map_err(|source| LoadError::Kernel {
        what: "find out what the kernel can do",
        source,
    })?;
    features.tcx &= !options.no_tcx;
    Ok(features)
}

/// Whether maps of an earlier agent are there; an error if they are not for us.
fn check_pinned(pins: &Pins, cookie: u64) -> Result<bool, LoadError> {
    for shape in &SHAPES {
        let path = pins.map(shape.name);
        match MapInfo::from_pin(&path).map_err(|error| open_error(path.clone(), error)) {
            Ok(info) => shape.check(path, &info)?,
            Err(OpenError::NotPinned { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if !pins.map(names::META).exists() {
        return Ok(false);
    }
    let meta = super::maps::meta(pins)?;
    if meta == Meta::default() {
        // An agent died between making the maps and writing this row, and before any other row.
        return Ok(false);
    }
    let facts = [
        ("ABI version", meta.abi, ABI_VERSION),
        ("clock", meta.clock, CLOCK_MONOTONIC_SECONDS),
    ];
    for (property, found, wanted) in facts {
        if found != wanted {
            return Err(LoadError::Meta {
                path: pins.root(),
                property,
                found,
                wanted,
            });
        }
    }
    if meta.netns_cookie != cookie {
        return Err(LoadError::OtherNode { path: pins.root() });
    }
    Ok(true)
}

/// Writes `CONFIG` and `META`, if they do not say so already.
fn configure(maps: &mut Maps, features: Features, cookie: u64, options: &Options) -> Result<(), MapError> {
    let ports = options.snat_ports;
    let old = maps.config.get(0)?;
    let mut new = old;
    new.host_netns_cookie = cookie;
    new.snat_first_port = ports.first();
    new.snat_ports = ports.count();
    new.fib_source = u8::from(features.fib_source);
    new.checksum_ipv6_flag = u8::from(features.checksum_ipv6_flag);
    new.reject_vip_ports = u8::from(options.reject_vip_ports);
    new.external_cluster_ips = u8::from(options.external_cluster_ips);
    if old.host_netns_cookie == 0 {
        (new.node_port_first, new.node_port_last) = NO_NODE_PORTS;
    }
    if let Some(had) = PortRange::of_config(&old).filter(|had| *had != ports) {
        tracing::warn!(
            "translated connections get source ports {ports} from now on, and not {had}: those that have a port outside of \
             {ports} end"
        );
    }
    if new != old {
        maps.config.put(0, &new)?;
    }
    let meta = Meta {
        abi: ABI_VERSION,
        clock: CLOCK_MONOTONIC_SECONDS,
        netns_cookie: cookie,
    };
    if maps.meta.get(0)? != meta {
        maps.meta.put(0, &meta)?;
    }
    Ok(())
}

/// Sends what the programs log to our log.
fn forward_logs(ebpf: &mut Ebpf, level: KernelLog) {
    if level == KernelLog::Off {
        return;
    }
    let reader = EbpfLogger::init(ebpf)
        .map_err(io::Error::other)
        .and_then(sys::readable);
    let mut reader = match reader {
        Ok(reader) => reader,
        Err(error) => {
            tracing::warn!(%error, "the kernel object logs nothing: it was built without aya-log");
            return;
        }
    };
    tokio::spawn(async move {
        while let Ok(mut ready) = reader.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
}

/// Sorts an error of aya about the object.
fn ebpf_error(pins: &Pins, error: aya::EbpfError) -> LoadError {
    match error {
        aya::EbpfError::MapError(aya::maps::MapError::IncompatiblePinnedMap {
            name,
            property,
            expected,
            actual,
        }) => OpenError::Layout {
            path: pins.map(&name),
            property,
            found: actual.to_string(),
            wanted: expected.to_string(),
        }
        .into(),
        aya::EbpfError::MapError(aya::maps::MapError::CreateError { name, io_error }) => LoadError::Ebpf(
            format!("cannot make the map {name}: {io_error}; is there memory enough, and are you root?"),
        ),
        other => LoadError::Ebpf(error_chain(&other)),
    }
}

/// An error and what caused it, as one line.
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// An error about one program, with the end of what the verifier said.
pub(super) fn program_error(name: &'static str, error: &ProgramError) -> LoadError {
    let reason = match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.len().saturating_sub(12);
            format!("{io_error}\n{}", lines.get(last..).unwrap_or_default().join("\n"))
        }
        other => error_chain(other),
    };
    let kernel = KernelVersion::current().map_or_else(|_| String::new(), |version| format!(" ({version:?})"));
    LoadError::Program { name, kernel, reason }
}
