//! Programs of a few instructions, to find out what the kernel can do.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::{Command, bpf, owned};

/// One instruction of a program, `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(in crate::kernel) struct Instruction {
    code: u8,
    /// Destination register in the low half, source register in the high half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    const fn new(code: u8, registers: u8, offset: i16, immediate: i32) -> Self {
        Self {
            code,
            registers,
            offset,
            immediate,
        }
    }

    /// `register = value`
    pub(in crate::kernel) const fn set(register: u8, value: i32) -> Self {
        Self::new(0xb7, register, 0, value)
    }

    /// `register += value`
    pub(in crate::kernel) const fn add(register: u8, value: i32) -> Self {
        Self::new(0x07, register, 0, value)
    }

    /// `to = from`
    pub(in crate::kernel) const fn copy(to: u8, from: u8) -> Self {
        Self::new(0xbf, from << 4 | to, 0, 0)
    }

    /// Eight zero bytes at this place of the stack.
    pub(in crate::kernel) const fn store_zero(place: i16) -> Self {
        Self::new(0x7a, 10, place, 0)
    }

    /// Calls a helper.
    pub(in crate::kernel) const fn call(helper: i32) -> Self {
        Self::new(0x85, 0, 0, helper)
    }

    /// Calls a function of the kernel, by its number in the kernel's BTF.
    pub(in crate::kernel) const fn call_kernel(function: i32) -> Self {
        Self::new(0x85, 2 << 4, 0, function)
    }

    /// `to = *(u8 *)(from + offset)`
    pub(in crate::kernel) const fn load_byte(to: u8, from: u8, offset: i16) -> Self {
        Self::new(0x71, from << 4 | to, offset, 0)
    }

    /// `if register == 0`, leaves out so many instructions.
    pub(in crate::kernel) const fn skip_if_zero(register: u8, count: i16) -> Self {
        Self::new(0x15, register, count, 0)
    }

    /// As it stands in an object file, which is of this machine's byte order.
    pub(in crate::kernel) fn bytes(self) -> [u8; 8] {
        let [low, high] = self.offset.to_ne_bytes();
        let [first, second, third, fourth] = self.immediate.to_ne_bytes();
        let [code, registers] = [self.code, self.registers];
        [code, registers, low, high, first, second, third, fourth]
    }

    /// Returns register 0.
    pub(in crate::kernel) const fn exit() -> Self {
        Self::new(0x95, 0, 0, 0)
    }
}

/// What a probe program is attached to, if it were.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::kernel) enum ProgramKind {
    /// `BPF_PROG_TYPE_SCHED_CLS`.
    Classifier,
    /// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`, `BPF_CGROUP_INET4_CONNECT`.
    Connect4,
}

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct LoadArguments {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// Loads a small program without maps.
pub(in crate::kernel) fn load_program(kind: ProgramKind, program: &[Instruction]) -> io::Result<OwnedFd> {
    let (kind, attach_type) = match kind {
        ProgramKind::Classifier => (3, 0),
        ProgramKind::Connect4 => (18, 10),
    };
    let mut arguments = LoadArguments {
        kind,
        count: u32::try_from(program.len()).unwrap_or(0),
        instructions: program.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
        attach_type,
        ..LoadArguments::default()
    };
    owned(bpf(Command::ProgramLoad, &mut arguments)?)
}

/// `struct { … } test` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct TestArguments {
    program: RawFd,
    answer: u32,
    input_size: u32,
    output_size: u32,
    input: u64,
    output: u64,
    repeat: u32,
    duration: u32,
    context_in_size: u32,
    context_out_size: u32,
    context_in: u64,
    context_out: u64,
}

/// Runs a classifier once over an empty frame and returns its answer.
pub(in crate::kernel) fn run_program(program: BorrowedFd<'_>) -> io::Result<u32> {
    let frame = [0_u8; 64];
    let mut arguments = TestArguments {
        program: program.as_raw_fd(),
        input_size: u32::try_from(frame.len()).unwrap_or(0),
        input: frame.as_ptr() as u64,
        ..TestArguments::default()
    };
    bpf(Command::ProgramTestRun, &mut arguments)?;
    Ok(arguments.answer)
}
