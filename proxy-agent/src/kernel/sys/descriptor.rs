//! What aya's and std's descriptors do not offer by themselves.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use proxy_common::Event;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The cookie of the network namespace that a socket was made in (Linux 5.14).
pub(in crate::kernel) fn netns_cookie(socket: impl AsFd) -> io::Result<u64> {
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
pub(in crate::kernel) fn event(record: &[u8]) -> Option<Event> {
    if record.len() != size_of::<Event>() {
        return None;
    }
    // SAFETY: the record has exactly the size of `Event`, whose `Pod` says that every bit pattern is a valid value;
    // the read asks for no alignment.
    Some(unsafe { record.as_ptr().cast::<Event>().read_unaligned() })
}

/// Registers a descriptor that becomes readable with tokio.
pub(in crate::kernel) fn readable<T: AsRawFd + AsFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the callers hand over aya's ring buffer or its logger, which own their descriptor until they are dropped,
    // always return the same one, and do not close or replace it.
    let registered = unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) };
    registered.map_err(|error| error.into_parts().1)
}
