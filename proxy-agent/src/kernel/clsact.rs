//! Attaches classifiers by netlink, where the kernel has no TCX (before Linux 6.6).
//!
//! A filter is known by its place: priority and handle are ours and fixed, so a later agent replaces the program of the
//! same filter, and clean-up finds it. The qdisc stays when weir goes: others may hang their filters into it meanwhile.

use aya::programs::tc::{NlOptions, SchedClassifierLink, TcError, TcHandle, qdisc_add_clsact};
use aya::programs::{ProgramError, SchedClassifier, TcAttach, TcAttachType};

use super::attach::Side;
use super::load::error_chain;

/// Ours among the filters of one priority.
const HANDLE: TcHandle = TcHandle::new(0, 0x7765);

/// Early for what comes in; for what goes out late, behind the priorities that the kernel gives out (0xc000 and below).
/// Not 1: that is what others write by hand, and two kinds of filter cannot share a priority.
const fn priority(side: Side) -> u16 {
    match side {
        Side::Ingress => 3,
        Side::Egress => 0xfff0,
    }
}

/// Makes the filter, or puts the program into the one that is there, unless that is `known` to have it.
pub(super) fn attach(
    program: &mut SchedClassifier,
    interface: u32,
    side: Side,
    known: bool,
) -> Result<(), String> {
    if let Err(error) = qdisc_add_clsact(interface)
        && tc_errno(&error) != Some(libc::EEXIST)
    {
        return Err(format!("cannot add the clsact qdisc: {}", error_chain(&error)));
    }
    let options = NlOptions {
        priority: priority(side),
        handle: HANDLE,
        classid: None,
    };
    let parent = parent(side);
    let link = match program.attach(interface, TcAttach::Netlink { parent, options }) {
        Ok(link) => link,
        Err(error) if known && errno(&error) == Some(libc::EEXIST) => return Ok(()),
        Err(error) if errno(&error) == Some(libc::EEXIST) => {
            let there = filter(interface, side).map_err(|error| error.to_string())?;
            program
                .attach_to_link(there)
                .map_err(|error| error_chain(&error))?
        }
        Err(error) => return Err(error_chain(&error)),
    };
    let link = program.take_link(link).map_err(|error| error_chain(&error))?;
    // Dropping it would remove the filter, and the filter has to outlive the agent. The value holds no descriptor.
    std::mem::forget(link);
    Ok(())
}

/// Removes the filter, if it is there; returns whether it was.
pub(super) fn detach(interface: u32, side: Side) -> bool {
    use aya::programs::links::Link as _;
    filter(interface, side).is_ok_and(|filter| filter.detach().is_ok())
}

/// Whether our filter is there.
pub(super) fn attached(interface: u32, side: Side) -> bool {
    filter(interface, side).is_ok()
}

fn filter(interface: u32, side: Side) -> std::io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, parent(side), priority(side), HANDLE, None)
}

/// The clsact side that a filter hangs at.
fn parent(side: Side) -> TcHandle {
    TcAttachType::from(side).into()
}

fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::NetlinkError(error) => error.raw_os_error(),
        ProgramError::TcError(error) => tc_errno(error),
        _ => None,
    }
}

fn tc_errno(error: &TcError) -> Option<i32> {
    match error {
        TcError::NetlinkError(error) => error.raw_os_error(),
        TcError::AlreadyAttached => Some(libc::EEXIST),
        _ => None,
    }
}
