//! What this kernel can do, found by trying: version numbers lie on kernels with backports.
//!
//! A flag is tried by a program of a few instructions, run once: a kernel that does not know the flag answers EINVAL
//! before it looks at anything else, one that knows it goes on to complain about the nonsense in the other arguments.

use std::io;
use std::os::fd::AsFd;

use super::sys::{self, Instruction, ProgramKind, TcxHook};

/// What this kernel can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is there or not, whatever the others are"
)]
pub struct Features {
    /// `BPF_FIB_LOOKUP_SRC`: the route look-up names the source address (Linux 6.7).
    pub fib_source: bool,
    /// `BPF_F_IPV6` of `bpf_l4_csum_replace` (Linux 6.16, commit ead7f9b8de65).
    pub checksum_ipv6_flag: bool,
    /// TCX links (Linux 6.6); clsact filters take their place before.
    pub tcx: bool,
    /// `bpf_set_retval`, with which a socket hook answers ECONNREFUSED (Linux 5.18).
    pub set_retval: bool,
}

/// Helpers by their numbers in `enum bpf_func_id`.
const L4_CSUM_REPLACE: i32 = 11;
const FIB_LOOKUP: i32 = 69;
const SET_RETVAL: i32 = 187;

const FIB_LOOKUP_SRC: i32 = 1 << 4;
const F_IPV6: i32 = 1 << 7;
const LOOPBACK: u32 = 1;

/// Tries everything once.
pub(super) fn probe() -> io::Result<Features> {
    Ok(Features {
        fib_source: knows_flag(&fib_lookup())?,
        checksum_ipv6_flag: knows_flag(&checksum())?,
        tcx: match sys::tcx_links(LOOPBACK, TcxHook::Ingress) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(error) => error.raw_os_error() == Some(libc::ENOENT),
        },
        set_retval: sys::load_program(ProgramKind::Connect4, &set_retval()).is_ok(),
    })
}

/// Runs a program that returns a helper's answer: is it anything else than "invalid argument"?
fn knows_flag(program: &[Instruction]) -> io::Result<bool> {
    let program = sys::load_program(ProgramKind::Classifier, program)?;
    let answer = sys::run_program(program.as_fd())?;
    Ok(answer.cast_signed() != -libc::EINVAL)
}

/// `bpf_fib_lookup(ctx, zeroes, 64, BPF_FIB_LOOKUP_SRC)`: address family 0 does not exist.
fn fib_lookup() -> Vec<Instruction> {
    let mut program: Vec<_> = (1..=8).map(|word| Instruction::store_zero(-8 * word)).collect();
    program.extend([
        Instruction::copy(2, 10),
        Instruction::add(2, -64),
        Instruction::set(3, 64),
        Instruction::set(4, FIB_LOOKUP_SRC),
        Instruction::call(FIB_LOOKUP),
        Instruction::exit(),
    ]);
    program
}

/// `bpf_l4_csum_replace(ctx, 1, 0, 0, BPF_F_IPV6)`: an odd offset is a fault.
fn checksum() -> Vec<Instruction> {
    vec![
        Instruction::set(2, 1),
        Instruction::set(3, 0),
        Instruction::set(4, 0),
        Instruction::set(5, F_IPV6),
        Instruction::call(L4_CSUM_REPLACE),
        Instruction::exit(),
    ]
}

/// `bpf_set_retval(0)`, loaded and never run.
fn set_retval() -> Vec<Instruction> {
    vec![
        Instruction::set(1, 0),
        Instruction::call(SET_RETVAL),
        Instruction::set(0, 1),
        Instruction::exit(),
    ]
}
