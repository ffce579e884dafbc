//! The bpf(2) calls that aya does not have: batches of rows, facts about links, what is attached where, probe programs.
//!
//! Every `unsafe` of the agent is in this folder. Each function hands the kernel one `repr(C)` structure, zeroed behind
//! the fields that it names, as bpf(2) asks ("unused bytes must be zero").

#![expect(unsafe_code, reason = "bpf(2) and SO_NETNS_COOKIE have no safe wrapper")]

mod batch;
mod descriptor;
mod link;
mod program;

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

pub(super) use batch::{Batches, take};
pub(super) use descriptor::{event, netns_cookie, readable};
pub(super) use link::{LinkFacts, LinkPlace, TcxHook, link_facts, open_pinned, tcx_links};
pub(super) use program::{Instruction, ProgramKind, load_program, run_program};

/// Commands of bpf(2), `enum bpf_cmd` of the uapi.
#[derive(Clone, Copy)]
enum Command {
    ProgramLoad = 5,
    ProgramTestRun = 10,
    ObjectGet = 7,
    ObjectInfo = 15,
    ProgramQuery = 16,
    TakeRow = 21,
    LookupBatch = 24,
}

/// Runs one command. The return value of the kernel is not negative.
fn bpf<T>(command: Command, arguments: &mut T) -> io::Result<i64> {
    // SAFETY: `arguments` is a live, exclusively borrowed `repr(C)` structure of exactly the given size, and the
    // callers put only pointers into it that outlive this call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(arguments),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Takes over the descriptor in the answer of a command that makes one.
fn owned(result: i64) -> io::Result<OwnedFd> {
    let descriptor = RawFd::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the callers pass what a bpf(2) command returned that makes descriptors; nobody else knows this one.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
