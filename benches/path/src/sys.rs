//! A program that does nothing, and test runs: aya has those only for programs of an object file.
//!
//! The agent's calls of bpf(2) are not used: its library brings kube and tokio.
//!
//! Each function hands the kernel one `repr(C)` structure that begins as `union bpf_attr` does for its command.

#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result};

/// Commands of bpf(2), `enum bpf_cmd` of the uapi.
#[derive(Clone, Copy)]
enum Command {
    ProgramLoad = 5,
    ProgramTestRun = 10,
}

/// `BPF_PROG_TYPE_SCHED_CLS`.
const CLASSIFIER: u32 = 3;

/// `struct { … } test` of `union bpf_attr`, as far as it is needed.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: RawFd,
    answer: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

/// Runs one command; the kernel's answer is not negative.
fn bpf<T>(command: Command, arguments: &mut T) -> io::Result<i64> {
    // SAFETY: `arguments` is a live, exclusively borrowed `repr(C)` structure of the given size, and the callers put
    // only pointers into it that outlive this call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(arguments),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The descriptor that a command answers with.
fn owned(answer: i64) -> Result<OwnedFd> {
    let fd = RawFd::try_from(answer).context("not a descriptor")?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Loads a classifier that does nothing: what a test run costs by itself.
pub(crate) fn empty_classifier() -> Result<OwnedFd> {
    // r0 = 0; exit. `struct bpf_insn`, eight bytes each.
    let instructions: [u64; 2] = [
        u64::from_le_bytes([0xb7, 0, 0, 0, 0, 0, 0, 0]),
        u64::from_le_bytes([0x95, 0, 0, 0, 0, 0, 0, 0]),
    ];
    let mut arguments = Load {
        kind: CLASSIFIER,
        count: 2,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
    };
    owned(bpf(Command::ProgramLoad, &mut arguments).context("cannot load an empty program")?)
}

/// What a test run said.
pub(crate) struct Tested {
    /// The program's return value.
    pub(crate) answer: u32,
    /// Nanoseconds of one run, on average.
    pub(crate) nanos: u32,
    /// The packet after the last run.
    pub(crate) packet: Vec<u8>,
}

/// Runs a program `repeat` times on a packet. Each run gets the packet as the one before left it.
pub(crate) fn test_run(program: BorrowedFd<'_>, packet: &[u8], repeat: u32) -> Result<Tested> {
    let mut out = vec![0_u8; packet.len() + 64];
    let mut arguments = TestRun {
        program: program.as_raw_fd(),
        size_in: u32::try_from(packet.len())?,
        size_out: u32::try_from(out.len())?,
        data_in: packet.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat,
        ..TestRun::default()
    };
    bpf(Command::ProgramTestRun, &mut arguments).context("BPF_PROG_TEST_RUN")?;
    out.truncate(usize::try_from(arguments.size_out)?);
    Ok(Tested {
        answer: arguments.answer,
        nanos: arguments.duration,
        packet: out,
    })
}
