//! Attaches the programs so that they outlive the agent.
//!
//! Every link is pinned the moment it exists, and its descriptor is closed: the pin alone holds it, so nothing is
//! detached when the agent ends, however it ends. A later agent puts its programs into the same links with one atomic
//! update each; no packet and no socket meets a moment without a program.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use aya::Ebpf;
use aya::programs::{CgroupSockAddr, Program, ProgramError, SchedClassifier};

use super::cgroup::Cgroup;
use super::classify::{Class, Held};
use super::clsact;
use super::links::{self, UNFINISHED, unpin};
use super::load::{LoadError, error_chain, program_error};
use super::pins::Pins;

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
pub(super) const CLASSIFIERS: [&str; 7] = [
    "pod_ingress",
    "guest_ingress",
    "uplink_ingress",
    "uplink_l3_ingress",
    "pod_egress",
    "uplink_egress",
    "uplink_l3_egress",
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
}

/// The program for one side of an interface of this class.
pub(super) const fn program_for(class: Class, side: Side) -> Option<&'static str> {
    match (class, side) {
        (Class::Ignored, _) => None,
        (Class::Pod, Side::Ingress) => Some("pod_ingress"),
        (Class::Guest, Side::Ingress) => Some("guest_ingress"),
        (Class::Uplink, Side::Ingress) => Some("uplink_ingress"),
        (Class::UplinkL3, Side::Ingress) => Some("uplink_l3_ingress"),
        (Class::Pod | Class::Guest, Side::Egress) => Some("pod_egress"),
        (Class::Uplink, Side::Egress) => Some("uplink_egress"),
        (Class::UplinkL3, Side::Egress) => Some("uplink_l3_egress"),
    }
}

/// The class whose ingress program has this name, which the kernel cuts.
fn class_of(program: &str) -> Option<Class> {
    const KEPT: usize = 15;
    [Class::Pod, Class::Guest, Class::Uplink, Class::UplinkL3]
        .into_iter()
        .find(|class| {
            program_for(*class, Side::Ingress)
                .is_some_and(|name| name.get(..KEPT.min(name.len())) == Some(program))
        })
}

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
    cgroup: Option<Cgroup>,
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
            cgroup: None,
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
    pub(super) fn attach_cgroup(&mut self, path: PathBuf) -> Result<(), AttachError> {
        self.cgroup = Some(Cgroup::open(path)?);
        self.check_cgroup()
    }

    /// Attaches socket hooks that somebody detached.
    pub(super) fn check_cgroup(&mut self) -> Result<(), AttachError> {
        let Some(cgroup) = &self.cgroup else {
            return Ok(());
        };
        for name in SOCKET_HOOKS {
            let pin = self.pins.link(&format!("cgroup-{name}"));
            socket_program(&mut self.ebpf, name)
                .map_err(|error| error_chain(&error))
                .and_then(|program| links::attach_socket_hook(program, &cgroup.folder, cgroup.id, &pin))
                .map_err(|reason| AttachError::Refused {
                    program: name,
                    place: format!("the cgroup {}", cgroup.path.display()),
                    reason,
                })?;
        }
        Ok(())
    }

    /// Makes sure that the programs for this class are at both sides of an interface of this namespace.
    pub(super) fn attach_interface(&mut self, interface: u32, class: Class) -> Result<(), AttachError> {
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

    fn attach_link(&mut self, interface: u32, side: Side, name: &'static str) -> Result<(), String> {
        let program = classifier(&mut self.ebpf, name).map_err(|error| error_chain(&error))?;
        let changed = links::attach_classifier(
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

    fn attach_filter(&mut self, interface: u32, side: Side, name: &'static str) -> Result<(), String> {
        let program = classifier(&mut self.ebpf, name).map_err(|error| error_chain(&error))?;
        let known = self.filters.contains(&(interface, side, name));
        clsact::attach(program, interface, side, known)?;
        self.filters
            .retain(|(index, at, _)| (*index, *at) != (interface, side));
        self.filters.insert((interface, side, name));
        // An agent may have run here that used links.
        unpin(&self.pins.link(&tcx_name(interface, side))).map_err(|error| error.to_string())
    }

    /// What an earlier agent attached to an interface.
    pub(super) fn held(&self, interface: u32) -> Held {
        let pin = self.pins.link(&tcx_name(interface, Side::Ingress));
        match links::program_at(interface, Side::Ingress, &pin) {
            Some(name) => class_of(&name).map_or(Held::Unknown, Held::As),
            None if clsact::attached(interface, Side::Ingress) => Held::Unknown,
            None => Held::Nothing,
        }
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

fn socket_program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut CgroupSockAddr, ProgramError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_known_by_its_program_as_the_kernel_names_it() {
        assert_eq!(class_of("pod_ingress"), Some(Class::Pod));
        assert_eq!(class_of("guest_ingress"), Some(Class::Guest));
        assert_eq!(class_of("uplink_ingress"), Some(Class::Uplink));
        assert_eq!(class_of("uplink_l3_ingre"), Some(Class::UplinkL3));
        for other in ["", "uplink", "pod_egress", "uplink_l3_egres"] {
            assert_eq!(class_of(other), None, "{other}");
        }
    }
}
