//! Pinned links: made, adopted, removed. The pin alone holds a link, so it outlives the agent.
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

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::TcAttachType;
use aya::programs::{
    CgroupAttachMode, CgroupSockAddr, LinkOrder, ProgramError, SchedClassifier, TcAttach, loaded_programs,
};

use super::attach::{AttachError, Side};
use super::load::error_chain;
use super::sys::{self, LinkFacts, LinkPlace, TcxHook};

/// End of the name of a pin that has not got its place yet. (The BPF file system reserves names with dots.)
pub(super) const UNFINISHED: &str = "-new";

/// Makes sure that this program is in our link at a cgroup.
pub(super) fn attach_socket_hook(
    program: &mut CgroupSockAddr,
    folder: &File,
    id: u64,
    pin: &Path,
) -> Result<(), String> {
    let text = |error: ProgramError| error_chain(&error);
    if let Some(facts) = pinned(pin)? {
        if facts.place == (LinkPlace::Cgroup { id }) {
            if program.info().is_ok_and(|info| info.id() == facts.program) {
                return Ok(());
            }
            let updated = program.attach_to_link(open(pin)?).map_err(text)?;
            drop(program.take_link(updated));
            return Ok(());
        }
        tracing::warn!(
            pin = %pin.display(),
            "the pinned link is at another cgroup, or was detached; attaching anew"
        );
    }
    // A link is always one of several (BPF_F_ALLOW_MULTI); the kernel wants no flag for that.
    let link = program
        .attach(folder, CgroupAttachMode::Single)
        .map_err(|error| cgroup_refusal(&error))?;
    let link = program.take_link(link).map_err(text)?;
    pin_over(FdLink::try_from(link).map_err(|error| error_chain(&error))?, pin)
}

/// Says what to do when a cgroup does not take our hook.
fn cgroup_refusal(error: &ProgramError) -> String {
    let reason = error_chain(error);
    match error {
        ProgramError::SyscallError(error) if error.io_error.kind() == io::ErrorKind::PermissionDenied => {
            format!(
                "{reason}; another program may hold this hook for itself (attached without BPF_F_ALLOW_MULTI, \
             see `bpftool cgroup tree`): remove it, or name another --cgroup"
            )
        }
        _ => reason,
    }
}

/// Makes sure that this program is in our link at an interface; returns whether it was not.
pub(super) fn attach_classifier(
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
        tracing::info!(interface, %side, "the pinned link is of an interface that is gone, or was detached");
        unpin(pin).map_err(|error| error.to_string())?;
    }
    let place = TcAttach::Tcx {
        attach_type: side.into(),
        order: order(side),
    };
    let link = program.attach(interface, place).map_err(text)?;
    let link = program.take_link(link).map_err(text)?;
    pin_over(FdLink::try_from(link).map_err(|error| error_chain(&error))?, pin)?;
    Ok(true)
}

/// Name of the program in our link at this place, as the kernel keeps it: its first 15 letters. Empty if it does not
/// tell; `None` if no link of ours is there.
pub(super) fn program_at(interface: u32, side: Side, pin: &Path) -> Option<String> {
    let facts = pinned(pin).ok()??;
    is_at(facts, interface, side).then(|| {
        loaded_programs()
            .map_while(Result::ok)
            .find(|info| info.id() == facts.program)
            .and_then(|info| info.name_as_str().map(str::to_owned))
            .unwrap_or_default()
    })
}

impl From<Side> for TcAttachType {
    fn from(side: Side) -> Self {
        match side {
            Side::Ingress => Self::Ingress,
            Side::Egress => Self::Egress,
        }
    }
}

/// Others see a packet to a Service as one to its backend, in both directions: we are the first to see what comes in
/// and the last to see what goes out.
fn order(side: Side) -> LinkOrder {
    match side {
        Side::Ingress => LinkOrder::first(),
        Side::Egress => LinkOrder::last(),
    }
}

/// Whether a link is at an interface of *this* namespace: another one may have the same number elsewhere.
fn is_at(facts: LinkFacts, interface: u32, side: Side) -> bool {
    let hook = match side {
        Side::Ingress => TcxHook::Ingress,
        Side::Egress => TcxHook::Egress,
    };
    facts.place == (LinkPlace::Tcx { interface })
        && sys::tcx_links(interface, hook).is_ok_and(|links| links.contains(&facts.id))
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
