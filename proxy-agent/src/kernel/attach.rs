//! Attaches the programs so that they outlive the agent.
//!
//! Every link is pinned below `links/` the moment it exists, and its descriptor is closed: the pin alone holds it, so
//! nothing is detached when the agent ends, however it ends. A later agent puts its programs into the same links with
//! one atomic update each; no packet and no socket meets a moment without a program.
//!
//! ```text
//!  pinned? ──no──▶ attach, pin
//!     │ yes
//!     ▼
//!  still at its place? ──no──▶ unpin, attach, pin
//!     │ yes
//!     ▼
//!  our program in it? ──no──▶ update the link
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::{
    CgroupAttachMode, CgroupSockAddr, LinkOrder, Program, ProgramError, SchedClassifier, TcAttach,
    TcAttachType,
};

use super::cgroup;
use super::classify::Class;
use super::clsact;
use super::load::{LoadError, error_chain, program_error};
use super::pins::Pins;
use super::sys::{self, LinkFacts, LinkPlace, TcxHook};

/// The socket hooks, by the names of their programs.
pub(super) const SOCKET_HOOKS: [&str; 8] = [
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "recvmsg4",
    "recvmsg6",
    "getpeername4",
    "getpeername6",
];

/// The packet programs.
pub(super) const CLASSIFIERS: [&str; 5] = [
    "pod_ingress",
    "uplink_ingress",
    "uplink_l3_ingress",
    "egress",
    "egress_l3",
];

/// Why a program is not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The cgroup hierarchy.
    #[error("{0}")]
    Cgroup(String),
    /// The kernel refused, or the pin could not be made.
    #[error("cannot attach {program} to {place}: {reason}")]
    Refused {
        /// Name of the program.
        program: &'static str,
        /// Where to.
        place: String,
        /// Why.
        reason: String,
    },
    /// A link that should go cannot be removed.
    #[error("cannot remove the link {path}: {source}")]
    Unpin {
        /// Its pin.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// One side of an interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Side {
    Ingress,
    Egress,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    const fn hook(self) -> TcxHook {
        match self {
            Self::Ingress => TcxHook::Ingress,
            Self::Egress => TcxHook::Egress,
        }
    }

    pub(super) const fn attach_type(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }

    /// Others see a packet to a Service as one to its backend, in both directions: we are the first to see what comes
    /// in and the last to see what goes out.
    fn order(self) -> LinkOrder {
        match self {
            Self::Ingress => LinkOrder::first(),
            Self::Egress => LinkOrder::last(),
        }
    }
}

/// The program for one side of an interface of this class.
pub(super) const fn program_for(class: Class, side: Side) -> Option<&'static str> {
    match (class, side) {
        (Class::Ignored, _) => None,
        (Class::Pod, Side::Ingress) => Some("pod_ingress"),
        (Class::Uplink, Side::Ingress) => Some("uplink_ingress"),
        (Class::UplinkL3, Side::Ingress) => Some("uplink_l3_ingress"),
        (Class::Pod | Class::Uplink, Side::Egress) => Some("egress"),
        (Class::UplinkL3, Side::Egress) => Some("egress_l3"),
    }
}

/// End of the name of a pin that has not got its place yet. (The BPF file system reserves names with dots.)
const UNFINISHED: &str = "-new";

/// Name of the pin of a TCX link.
fn tcx_name(interface: u32, side: Side) -> String {
    format!("tcx-{interface}-{}", side.name())
}

/// The interface in the name of the pin of a TCX link.
fn tcx_interface(name: &str) -> Option<u32> {
    name.strip_prefix("tcx-")?.split_once('-')?.0.parse().ok()
}

/// The loaded programs, and where they are attached.
pub struct Programs {
    ebpf: Ebpf,
    pins: Pins,
    tcx: bool,
    /// Filters that this agent's program is in: netlink does not tell which program a filter has.
    filters: BTreeSet<(u32, Side, &'static str)>,
}

impl Programs {
    /// Hands every program to the kernel's verifier.
    pub(super) fn load(mut ebpf: Ebpf, pins: Pins, tcx: bool) -> Result<Self, LoadError> {
        for name in SOCKET_HOOKS {
            socket_program(&mut ebpf, name)
                .and_then(CgroupSockAddr::load)
                .map_err(|error| program_error(name, &error))?;
        }
        for name in CLASSIFIERS {
            classifier(&mut ebpf, name)
                .and_then(SchedClassifier::load)
                .map_err(|error| program_error(name, &error))?;
        }
        let programs = Self {
            ebpf,
            pins,
            tcx,
            filters: BTreeSet::new(),
        };
        programs.remove_unfinished();
        Ok(programs)
    }

    /// Removes what an agent left that died between pinning a link and giving the pin its name.
    fn remove_unfinished(&self) {
        for name in self
            .pinned_links()
            .iter()
            .filter(|name| name.ends_with(UNFINISHED))
        {
            if let Err(error) = unpin(&self.pins.link(name)) {
                tracing::warn!(%error, "an unfinished link stays");
            }
        }
    }

    fn pinned_links(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.pins.links()) else {
            return Vec::new();
        };
        entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// Whether packets are met by TCX links; by clsact filters otherwise.
    pub fn uses_tcx(&self) -> bool {
        self.tcx
    }

    /// Attaches the socket hooks to a cgroup v2 folder, or puts our programs into the links that are there.
    pub(super) fn attach_cgroup(&mut self, path: Option<&Path>) -> Result<(), AttachError> {
        let path = cgroup::find(path)?;
        let folder = File::open(&path).map_err(|error| {
            AttachError::Cgroup(format!(
                "cannot open the cgroup {}: {error}",
                path.display()
            ))
        })?;
        // On cgroup2 the number of a folder's inode is the cgroup's id (Linux 5.5, commit 40430452fd5d).
        let id = folder
            .metadata()
            .map_err(|error| {
                AttachError::Cgroup(format!(
                    "cannot look at the cgroup {}: {error}",
                    path.display()
                ))
            })?
            .ino();
        for name in SOCKET_HOOKS {
            self.attach_socket_hook(name, &folder, id)
                .map_err(|reason| AttachError::Refused {
                    program: name,
                    place: format!("the cgroup {}", path.display()),
                    reason,
                })?;
        }
        Ok(())
    }

    fn attach_socket_hook(
        &mut self,
        name: &'static str,
        cgroup: &File,
        id: u64,
    ) -> Result<(), String> {
        let pin = self.pins.link(&format!("cgroup-{name}"));
        let program = socket_program(&mut self.ebpf, name).map_err(|error| error_chain(&error))?;
        if let Some(facts) = pinned(&pin)? {
            if facts.place == (LinkPlace::Cgroup { id }) {
                let updated = program
                    .attach_to_link(open(&pin)?)
                    .map_err(|error| error_chain(&error))?;
                drop(program.take_link(updated));
                return Ok(());
            }
            tracing::warn!(
                hook = name,
                "the pinned link is at another cgroup, or was detached; attaching anew"
            );
        }
        // A link is always one of several (BPF_F_ALLOW_MULTI); the kernel wants no flag for that.
        let link = program
            .attach(cgroup, CgroupAttachMode::Single)
            .map_err(|error| cgroup_refusal(&error))?;
        let link = program
            .take_link(link)
            .map_err(|error| error_chain(&error))?;
        pin_over(
            FdLink::try_from(link).map_err(|error| error_chain(&error))?,
            &pin,
        )
    }

    /// Makes sure that the programs for this class are at both sides of an interface of this namespace.
    pub(super) fn attach_interface(
        &mut self,
        interface: u32,
        class: Class,
    ) -> Result<(), AttachError> {
        for side in Side::BOTH {
            let Some(name) = program_for(class, side) else {
                continue;
            };
            let attached = if self.tcx {
                self.attach_link(interface, side, name)
            } else {
                self.attach_filter(interface, side, name)
            };
            attached.map_err(|reason| AttachError::Refused {
                program: name,
                place: format!("the {side} of interface {interface}"),
                reason,
            })?;
        }
        Ok(())
    }

    fn attach_link(
        &mut self,
        interface: u32,
        side: Side,
        name: &'static str,
    ) -> Result<(), String> {
        let program = classifier(&mut self.ebpf, name).map_err(|error| error_chain(&error))?;
        let changed = attach_tcx(
            program,
            interface,
            side,
            &self.pins.link(&tcx_name(interface, side)),
        )?;
        if changed {
            // An agent may have run here that was told to use filters.
            clsact::detach(interface, side);
        }
        Ok(())
    }

    fn attach_filter(
        &mut self,
        interface: u32,
        side: Side,
        name: &'static str,
    ) -> Result<(), String> {
        let program = classifier(&mut self.ebpf, name).map_err(|error| error_chain(&error))?;
        let known = self.filters.contains(&(interface, side, name));
        clsact::attach(program, interface, side, known)?;
        self.filters
            .retain(|(index, at, _)| (*index, *at) != (interface, side));
        self.filters.insert((interface, side, name));
        // An agent may have run here that used links.
        unpin(&self.pins.link(&tcx_name(interface, side))).map_err(|error| error.to_string())
    }

    /// Takes our programs off an interface, wherever it is now.
    pub(super) fn detach_interface(&mut self, interface: u32) -> Result<(), AttachError> {
        for side in Side::BOTH {
            unpin(&self.pins.link(&tcx_name(interface, side)))?;
            if !self.tcx {
                clsact::detach(interface, side);
            }
        }
        self.filters.retain(|(index, _, _)| *index != interface);
        Ok(())
    }

    /// Interfaces that have a pinned link.
    pub(super) fn pinned_interfaces(&self) -> Vec<u32> {
        let mut interfaces: Vec<u32> = self
            .pinned_links()
            .iter()
            .filter_map(|name| tcx_interface(name))
            .collect();
        interfaces.sort_unstable();
        interfaces.dedup();
        interfaces
    }
}

fn socket_program<'a>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut CgroupSockAddr, ProgramError> {
    program(ebpf, name)?.try_into()
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, ProgramError> {
    program(ebpf, name)?.try_into()
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, ProgramError> {
    ebpf.program_mut(name).ok_or_else(|| {
        ProgramError::IOError(io::Error::new(
            io::ErrorKind::NotFound,
            "the kernel object has no such program: build agent and object from the same source",
        ))
    })
}

/// Says what to do when a cgroup does not take our hook.
fn cgroup_refusal(error: &ProgramError) -> String {
    let reason = error_chain(error);
    match error {
        ProgramError::SyscallError(error)
            if error.io_error.kind() == io::ErrorKind::PermissionDenied =>
        {
            format!(
                "{reason}; another program may hold this hook for itself (attached without BPF_F_ALLOW_MULTI, \
             see `bpftool cgroup tree`): remove it, or name another --cgroup"
            )
        }
        _ => reason,
    }
}

/// Makes sure that this program is in our link there; returns whether it was not.
fn attach_tcx(
    program: &mut SchedClassifier,
    interface: u32,
    side: Side,
    pin: &Path,
) -> Result<bool, String> {
    let text = |error: ProgramError| error_chain(&error);
    if let Some(facts) = pinned(pin)? {
        if is_at(facts, interface, side) {
            if program.info().is_ok_and(|info| info.id() == facts.program) {
                return Ok(false);
            }
            let updated = program.attach_to_link(open(pin)?).map_err(text)?;
            drop(program.take_link(updated));
            return Ok(true);
        }
        tracing::info!(
            interface,
            side = side.name(),
            "the pinned link is of an interface that is gone, or was detached"
        );
        unpin(pin).map_err(|error| error.to_string())?;
    }
    let place = TcAttach::Tcx {
        attach_type: side.attach_type(),
        order: side.order(),
    };
    let link = program.attach(interface, place).map_err(text)?;
    let link = program.take_link(link).map_err(text)?;
    pin_over(
        FdLink::try_from(link).map_err(|error| error_chain(&error))?,
        pin,
    )?;
    Ok(true)
}

/// Whether a link is at an interface of *this* namespace: another one may have the same number elsewhere.
fn is_at(facts: LinkFacts, interface: u32, side: Side) -> bool {
    facts.place == (LinkPlace::Tcx { interface })
        && sys::tcx_links(interface, side.hook()).is_ok_and(|links| links.contains(&facts.id))
}

/// What the kernel tells of the link behind a pin, if there is one.
fn pinned(pin: &Path) -> Result<Option<LinkFacts>, String> {
    match sys::open_pinned(pin).and_then(sys::link_facts) {
        Ok(facts) => Ok(Some(facts)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot open the link {}: {error}", pin.display())),
    }
}

/// The link behind a pin, to put a program into it.
fn open<L: TryFrom<FdLink, Error = LinkError>>(pin: &Path) -> Result<L, String> {
    PinnedLink::from_pin(pin)
        .and_then(|link| FdLink::from(link).try_into())
        .map_err(|error| error_chain(&error))
}

/// Pins a link, in one step with the removal of a link that has the pin now.
fn pin_over(link: FdLink, pin: &Path) -> Result<(), String> {
    let mut new = pin.as_os_str().to_owned();
    new.push(UNFINISHED);
    let new = PathBuf::from(new);
    unpin(&new).map_err(|error| error.to_string())?;
    let pinned = link.pin(&new).map_err(|error| error_chain(&error))?;
    fs::rename(&new, pin).map_err(|error| format!("cannot pin at {}: {error}", pin.display()))?;
    drop(pinned);
    Ok(())
}

/// Removes a pin; that there is none is what was asked for.
pub(super) fn unpin(path: &Path) -> Result<(), AttachError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(AttachError::Unpin {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
