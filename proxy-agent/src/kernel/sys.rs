//! The bpf(2) calls that aya does not have: batches of rows, facts about links, what is attached where.
//!
//! Every `unsafe` of the agent is in this file. Each function hands the kernel one `repr(C)` structure, zeroed behind
//! the fields that it names, as bpf(2) asks ("unused bytes must be zero").

#![expect(
    unsafe_code,
    reason = "bpf(2) and SO_NETNS_COOKIE have no safe wrapper"
)]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya::Pod;
use proxy_common::Event;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Commands of bpf(2), `enum bpf_cmd` of the uapi.
#[derive(Clone, Copy)]
enum Command {
    ProgramLoad = 5,
    ProgramTestRun = 10,
    ObjectGet = 7,
    ObjectInfo = 15,
    ProgramQuery = 16,
    LookupBatch = 24,
    DeleteBatch = 27,
}

/// `struct { … } batch` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct BatchArguments {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: RawFd,
    element_flags: u64,
    flags: u64,
}

/// `struct { … } info` of `union bpf_attr`.
#[repr(C)]
struct InfoArguments {
    object: RawFd,
    length: u32,
    info: u64,
}

/// `struct { … } query` of `union bpf_attr`, as of Linux 6.6 (commit 053c8e1f235d).
#[repr(C)]
#[derive(Default)]
struct QueryArguments {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    reserved: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
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

/// A walk over a map in chunks by `BPF_MAP_LOOKUP_BATCH` (Linux 5.6).
///
/// For hash maps the kernel returns whole buckets, so rows that others add or delete meanwhile can be seen or not,
/// but no row that stays is skipped or seen twice.
pub(super) struct Batches<K, V> {
    /// Opaque to us: an array's or a plain walk's last key, a hash map's bucket. Never larger than key or u32.
    position: Vec<u8>,
    started: bool,
    finished: bool,
    keys: Vec<MaybeUninit<K>>,
    values: Vec<MaybeUninit<V>>,
}

impl<K: Pod, V: Pod> Batches<K, V> {
    /// A walk from the beginning, with room for `capacity` rows a chunk.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            position: vec![0; size_of::<K>().max(size_of::<u32>())],
            started: false,
            finished: false,
            keys: vec![MaybeUninit::uninit(); capacity],
            values: vec![MaybeUninit::uninit(); capacity],
        }
    }

    /// A walk over the rows behind `key` of an array, whose position is its last key.
    pub(super) fn after(key: u32, capacity: usize) -> Self {
        let mut batches = Self::new(capacity);
        batches.position = key.to_ne_bytes().to_vec();
        batches.started = true;
        batches
    }

    /// The next rows; empty at the end of the map.
    pub(super) fn next(&mut self, map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>> {
        while !self.finished {
            let mut next = vec![0_u8; self.position.len()];
            let mut arguments = BatchArguments {
                in_batch: if self.started {
                    self.position.as_ptr() as u64
                } else {
                    0
                },
                out_batch: next.as_mut_ptr() as u64,
                keys: self.keys.as_mut_ptr() as u64,
                values: self.values.as_mut_ptr() as u64,
                count: u32::try_from(self.keys.len()).unwrap_or(u32::MAX),
                map: map.as_raw_fd(),
                ..BatchArguments::default()
            };
            match bpf(Command::LookupBatch, &mut arguments) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.finished = true,
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    // One bucket of a hash map is larger than the buffer: nothing was read, so grow and ask again.
                    let larger = self.keys.len().saturating_mul(2).max(64);
                    self.keys.resize(larger, MaybeUninit::uninit());
                    self.values.resize(larger, MaybeUninit::uninit());
                    continue;
                }
                Err(error) => return Err(error),
            }
            self.position = next;
            self.started = true;
            let count = usize::try_from(arguments.count).unwrap_or(0);
            if count > 0 {
                return Ok(self.take(count));
            }
        }
        Ok(Vec::new())
    }

    fn take(&self, count: usize) -> Vec<(K, V)> {
        self.keys
            .iter()
            .zip(&self.values)
            .take(count)
            // SAFETY: the kernel reported `count` rows and filled that many keys and values from the start of both
            // buffers; `Pod` says that every bit pattern is a valid value.
            .map(|(key, value)| unsafe { (key.assume_init(), value.assume_init()) })
            .collect()
    }
}

/// Deletes rows of a hash map by `BPF_MAP_DELETE_BATCH`; a row that is gone already is not an error.
///
/// Returns how many rows were deleted.
pub(super) fn delete_batch<K: Pod>(map: BorrowedFd<'_>, keys: &[K]) -> io::Result<usize> {
    let mut deleted = 0;
    let mut rest = keys;
    while !rest.is_empty() {
        let mut arguments = BatchArguments {
            keys: rest.as_ptr() as u64,
            count: u32::try_from(rest.len()).unwrap_or(u32::MAX),
            map: map.as_raw_fd(),
            ..BatchArguments::default()
        };
        let result = bpf(Command::DeleteBatch, &mut arguments);
        let done = usize::try_from(arguments.count)
            .unwrap_or(0)
            .min(rest.len());
        deleted += done;
        match result {
            Ok(_) => rest = rest.get(done.max(1)..).unwrap_or_default(),
            // The kernel stops at the first missing key: skip it.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                rest = rest.get(done + 1..).unwrap_or_default();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

/// `struct { … }` of `union bpf_attr` for `BPF_OBJ_GET`.
#[repr(C)]
struct GetArguments {
    path: u64,
    reserved: u32,
    flags: u32,
}

/// Opens what is pinned at a path.
pub(super) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut arguments = GetArguments {
        path: path.as_ptr() as u64,
        reserved: 0,
        flags: 0,
    };
    descriptor(bpf(Command::ObjectGet, &mut arguments)?)
}

fn descriptor(result: i64) -> io::Result<OwnedFd> {
    let descriptor = RawFd::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the callers pass what a bpf(2) command returned that makes descriptors; nobody else knows this one.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// What the kernel tells of a link, `struct bpf_link_info`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LinkFacts {
    /// Id of the link.
    pub(super) id: u32,
    /// Id of the program behind it.
    pub(super) program: u32,
    /// Where it is attached.
    pub(super) place: LinkPlace,
}

/// Where a link is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LinkPlace {
    /// A cgroup by its id; 0 if the cgroup is gone or somebody detached the link.
    Cgroup { id: u64 },
    /// An interface by its index in the namespace that it is in now; 0 if it is gone or somebody detached the link.
    Tcx { interface: u32 },
    /// Neither.
    Other { kind: u32 },
}

/// The head of `struct bpf_link_info`, and of the union in it what both kinds of links need.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    first: [u32; 2],
    rest: [u64; 8],
}

/// Asks the kernel about a link.
pub(super) fn link_facts(link: impl AsFd) -> io::Result<LinkFacts> {
    const CGROUP: u32 = 3;
    const TCX: u32 = 11;
    let mut info = LinkInfo::default();
    object_info(link.as_fd(), &mut info)?;
    let [first, second] = info.first;
    let place = match info.kind {
        CGROUP => {
            let mut id = [0; 8];
            let (low, high) = id.split_at_mut(4);
            low.copy_from_slice(&first.to_ne_bytes());
            high.copy_from_slice(&second.to_ne_bytes());
            LinkPlace::Cgroup {
                id: u64::from_ne_bytes(id),
            }
        }
        TCX => LinkPlace::Tcx { interface: first },
        kind => LinkPlace::Other { kind },
    };
    Ok(LinkFacts {
        id: info.id,
        program: info.program,
        place,
    })
}

fn object_info<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut arguments = InfoArguments {
        object: object.as_raw_fd(),
        length: u32::try_from(size_of::<T>()).unwrap_or(0),
        info: std::ptr::from_mut(info) as u64,
    };
    bpf(Command::ObjectInfo, &mut arguments).map(drop)
}

/// Direction of a TCX hook, as `enum bpf_attach_type` numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TcxHook {
    Ingress = 46,
    Egress = 47,
}

/// Ids of the links at a TCX hook of an interface of this namespace (Linux 6.6).
pub(super) fn tcx_links(interface: u32, hook: TcxHook) -> io::Result<Vec<u32>> {
    /// `BPF_MPROG_MAX`: the kernel holds no more at one hook.
    const MOST: usize = 64;
    let mut programs = [0_u32; MOST];
    let mut links = [0_u32; MOST];
    let mut arguments = QueryArguments {
        target: interface,
        attach_type: hook as u32,
        programs: programs.as_mut_ptr() as u64,
        count: u32::try_from(MOST).unwrap_or(0),
        links: links.as_mut_ptr() as u64,
        ..QueryArguments::default()
    };
    bpf(Command::ProgramQuery, &mut arguments)?;
    let count = usize::try_from(arguments.count).unwrap_or(0);
    Ok(links
        .iter()
        .take(count)
        .copied()
        .filter(|id| *id != 0)
        .collect())
}

/// The cookie of the network namespace that a socket was made in (Linux 5.14).
pub(super) fn netns_cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or(0);
    // SAFETY: the option is eight bytes long, which is what `cookie` has and what `length` says; both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}

/// An event from a record of the ring buffer; `None` if it has another length.
pub(super) fn event(record: &[u8]) -> Option<Event> {
    if record.len() != size_of::<Event>() {
        return None;
    }
    // SAFETY: the record has exactly the size of `Event`, whose `Pod` says that every bit pattern is a valid value;
    // the read asks for no alignment.
    Some(unsafe { record.as_ptr().cast::<Event>().read_unaligned() })
}

/// Registers a descriptor that becomes readable with tokio.
pub(super) fn readable<T: AsRawFd + AsFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the callers hand over aya's ring buffer or its logger, which own their descriptor until they are dropped,
    // always return the same one, and do not close or replace it.
    let registered = unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) };
    registered.map_err(|error| error.into_parts().1)
}

/// One instruction of a program, `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Instruction {
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
    pub(super) const fn set(register: u8, value: i32) -> Self {
        Self::new(0xb7, register, 0, value)
    }

    /// `register += value`
    pub(super) const fn add(register: u8, value: i32) -> Self {
        Self::new(0x07, register, 0, value)
    }

    /// `to = from`
    pub(super) const fn copy(to: u8, from: u8) -> Self {
        Self::new(0xbf, from << 4 | to, 0, 0)
    }

    /// Eight zero bytes at this place of the stack.
    pub(super) const fn store_zero(place: i16) -> Self {
        Self::new(0x7a, 10, place, 0)
    }

    /// Calls a helper.
    pub(super) const fn call(helper: i32) -> Self {
        Self::new(0x85, 0, 0, helper)
    }

    /// Returns register 0.
    pub(super) const fn exit() -> Self {
        Self::new(0x95, 0, 0, 0)
    }
}

/// What a probe program is attached to, if it were.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ProgramKind {
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
pub(super) fn load_program(kind: ProgramKind, program: &[Instruction]) -> io::Result<OwnedFd> {
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
    descriptor(bpf(Command::ProgramLoad, &mut arguments)?)
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
pub(super) fn run_program(program: BorrowedFd<'_>) -> io::Result<u32> {
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
