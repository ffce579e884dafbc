//! Links: where they are, and what is at a place.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Command, bpf, owned};

/// `struct { … }` of `union bpf_attr` for `BPF_OBJ_GET`.
#[repr(C)]
struct GetArguments {
    path: u64,
    reserved: u32,
    flags: u32,
}

/// Opens what is pinned at a path.
pub(in crate::kernel) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut arguments = GetArguments {
        path: path.as_ptr() as u64,
        reserved: 0,
        flags: 0,
    };
    owned(bpf(Command::ObjectGet, &mut arguments)?)
}

/// What the kernel tells of a link, `struct bpf_link_info`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::kernel) struct LinkFacts {
    /// Id of the link.
    pub(in crate::kernel) id: u32,
    /// Id of the program behind it.
    pub(in crate::kernel) program: u32,
    /// Where it is attached.
    pub(in crate::kernel) place: LinkPlace,
}

/// Where a link is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::kernel) enum LinkPlace {
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
pub(in crate::kernel) fn link_facts(link: impl AsFd) -> io::Result<LinkFacts> {
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

/// `struct { … } info` of `union bpf_attr`.
#[repr(C)]
struct InfoArguments {
    object: RawFd,
    length: u32,
    info: u64,
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
pub(in crate::kernel) enum TcxHook {
    Ingress = 46,
    Egress = 47,
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

/// Ids of the links at a TCX hook of an interface of this namespace (Linux 6.6).
pub(in crate::kernel) fn tcx_links(interface: u32, hook: TcxHook) -> io::Result<Vec<u32>> {
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
    Ok(links.iter().take(count).copied().filter(|id| *id != 0).collect())
}
