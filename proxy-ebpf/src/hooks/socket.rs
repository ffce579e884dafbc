//! The socket hooks: `connect` and `sendmsg` get a backend's address, `recvmsg` and `getpeername` the frontend's.

use core::hint::black_box;
use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use proxy_common::{Be16, EventKind, Ip, Reason};
use proxy_datapath::socket::{self, Answer, Call, Caller};

use crate::tables::Kernel;
use crate::words::{bytes, words};
use crate::{count, maps};

/// What a hook returns: go on, or fail.
const ALLOW: i32 = 1;
const FAIL: i32 = 0;
const ECONNREFUSED: i32 = 111;
const EHOSTUNREACH: i32 = 113;

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    to_service(&ctx, Family::V4, true)
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    to_service(&ctx, Family::V6, true)
}

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    to_service(&ctx, Family::V4, false)
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    to_service(&ctx, Family::V6, false)
}

#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(ctx: SockAddrContext) -> i32 {
    from_backend(&ctx, Family::V4)
}

#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(ctx: SockAddrContext) -> i32 {
    from_backend(&ctx, Family::V6)
}

#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    from_backend(&ctx, Family::V4)
}

#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    from_backend(&ctx, Family::V6)
}

/// The family of the hook. An IPv6 socket that talks to an IPv4-mapped address uses that of IPv6.
#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

/// The socket of a call.
struct Asker<'a>(&'a SockAddrContext);

impl Caller for Asker<'_> {
    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the helper takes the program's context as it is.
        unsafe { bpf_get_socket_cookie(self.0.as_ptr()) }
    }

    #[inline(always)]
    fn is_host(&self) -> bool {
        maps::CONFIG.get(0).is_some_and(|config| {
            // SAFETY: as above.
            config.host_netns_cookie == unsafe { bpf_get_netns_cookie(self.0.as_ptr()) }
        })
    }

    #[inline(always)]
    fn source_port(&self) -> u16 {
        // SAFETY: fields that the verifier knows, read whole; every call has a socket.
        unsafe {
            let socket = ptr::read_volatile(&raw const (*self.0.sock_addr).__bindgen_anon_1.sk);
            ptr::read_volatile(&raw const (*socket).src_port) as u16
        }
    }
}

#[inline(always)]
fn to_service(ctx: &SockAddrContext, family: Family, connect: bool) -> i32 {
    let call = read(ctx, family, connect);
    let kernel = Kernel {
        ctx: ctx.as_ptr(),
        entry: None,
    };
    let answer = socket::to_service(&kernel, &Asker(ctx), &call);
    // verifier: in registers, what an answer does not have would be saved where others have it ("R1 !read_ok").
    match *black_box(&answer) {
        Answer::Leave => ALLOW,
        Answer::Use(address, port) => {
            write(ctx, family, &address, port);
            let frontend = (call.address, call.port, call.protocol);
            count::socket(
                EventKind::Socket,
                Reason::SocketTranslated,
                frontend,
                (address, port),
            );
            ALLOW
        }
        Answer::Refuse(reason) => fail(&call, reason, EventKind::Reject, ECONNREFUSED),
        Answer::Block(reason) => fail(&call, reason, EventKind::Drop, EHOSTUNREACH),
    }
}

/// Fails the call. Before Linux 5.18 the program cannot say how, and the caller gets EPERM.
#[inline(always)]
fn fail(call: &Call, reason: Reason, kind: EventKind, errno: i32) -> i32 {
    count::socket(
        kind,
        reason,
        (call.address, call.port, call.protocol),
        (Ip::UNSPECIFIED, 0),
    );
    if maps::HAVE_SET_RETVAL.load() != 0 {
        // SAFETY: a number only.
        unsafe { bpf_set_retval(-errno) };
    }
    FAIL
}

#[inline(always)]
fn from_backend(ctx: &SockAddrContext, family: Family) -> i32 {
    let call = read(ctx, family, false);
    if let Some((address, port)) = socket::from_backend(
        &Kernel {
            ctx: ctx.as_ptr(),
            entry: None,
        },
        &Asker(ctx),
        &call,
    ) {
        write(ctx, family, &address, port);
    }
    ALLOW
}

/// What the program asks for.
///
/// verifier: the context is read and written in whole fields ("invalid `bpf_context` access"), hence volatile.
#[inline(always)]
fn read(ctx: &SockAddrContext, family: Family, connect: bool) -> Call {
    let sock = ctx.sock_addr;
    // SAFETY: fields of the program's own context.
    unsafe {
        let address = match family {
            Family::V4 => Ip::v4(ptr::read_volatile(&raw const (*sock).user_ip4).to_ne_bytes()),
            Family::V6 => {
                let field = (&raw const (*sock).user_ip6).cast::<u32>();
                bytes([
                    ptr::read_volatile(field),
                    ptr::read_volatile(field.add(1)),
                    ptr::read_volatile(field.add(2)),
                    ptr::read_volatile(field.add(3)),
                ])
            }
        };
        let port = ptr::read_volatile(&raw const (*sock).user_port) as u16;
        Call {
            address,
            port: Be16::from_wire(port.to_ne_bytes()).to_host(),
            protocol: ptr::read_volatile(&raw const (*sock).protocol) as u8,
            connect,
        }
    }
}

/// Puts another address in its place.
#[inline(always)]
fn write(ctx: &SockAddrContext, family: Family, address: &Ip, port: u16) {
    let sock: *mut bpf_sock_addr = ctx.sock_addr;
    let port = u16::from_ne_bytes(Be16::from_host(port).to_wire());
    // SAFETY: fields of the program's own context that these hooks may write.
    unsafe {
        match family {
            Family::V4 => {
                ptr::write_volatile(&raw mut (*sock).user_ip4, u32::from_ne_bytes(address.v4_bytes()));
            }
            Family::V6 => {
                let field = (&raw mut (*sock).user_ip6).cast::<u32>();
                let [a, b, c, d] = words(address);
                ptr::write_volatile(field, a);
                ptr::write_volatile(field.add(1), b);
                ptr::write_volatile(field.add(2), c);
                ptr::write_volatile(field.add(3), d);
            }
        }
        ptr::write_volatile(&raw mut (*sock).user_port, u32::from(port));
    }
}
