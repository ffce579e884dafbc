//! `BPF_PROG_TEST_RUN` with a flag that aya does not set.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};

/// `BPF_PROG_TEST_RUN` of `enum bpf_cmd`.
const PROG_TEST_RUN: libc::c_long = 10;
/// `BPF_F_TEST_SKB_CHECKSUM_COMPLETE` (Linux 6.11).
const CHECKSUM_COMPLETE: u32 = 1 << 2;

/// `struct { … } test` of `union bpf_attr`.
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
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    padding: u32,
}

/// Runs a program on a packet that the device has summed, and says what it answered. The kernel sums the packet again
/// afterwards: `EBADMSG` if that is not what the program left as the device's sum.
#[expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]
pub(super) fn run_summed(program: BorrowedFd<'_>, packet: &[u8], context: &[u8]) -> io::Result<i32> {
    let size = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(io::Error::other);
    let mut arguments = TestRun {
        program: program.as_raw_fd(),
        size_in: size(packet)?,
        data_in: packet.as_ptr() as u64,
        context_size_in: size(context)?,
        context_in: context.as_ptr() as u64,
        flags: CHECKSUM_COMPLETE,
        ..TestRun::default()
    };
    // SAFETY: the structure is as the kernel wants it and as large as is said; its pointers are to slices that are
    // borrowed for longer than the call, with their lengths.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_TEST_RUN,
            std::ptr::from_mut(&mut arguments),
            size_of::<TestRun>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(arguments.answer.cast_signed())
}
