//! Finds the UDP sockets of this network namespace that the socket hook connected to a backend which does not serve any
//! more, or for a frontend that is another Service's now, and ends them.
//!
//! What `connect` told a socket is for ever: no packet of it is translated, so no packet can be turned to another
//! backend. Ended, it fails at the next use, and the process connects again.
//!
//! A socket is weir's if `SOCKETS` says that its cookie was given the address that it is connected to. That row must
//! outlive more than 65,536 other connections, so it is written again as long as its socket is there.

use std::io;

use proxy_common::Socket;
use proxy_datapath::parse::UDP;

use super::diag::{Connected, Diag};
use super::flows::owner;
use super::maps::{MapError, Maps, OpenError};
use super::pins::Pins;

/// What one look came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Look {
    /// Sockets that were ended.
    pub ended: usize,
    /// Sockets that the kernel did not end.
    pub refused: usize,
    /// Why it did not.
    pub why: Option<String>,
}

/// Why the sockets could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The kernel does not list them.
    #[error(
        "the kernel does not list the UDP sockets of this node's own processes ({0}), so one that is connected to an \
         endpoint which goes is not ended, and asks it for ever: load the module udp_diag, or use a kernel that is built \
         with CONFIG_INET_UDP_DIAG"
    )]
    List(io::Error),
    /// A row.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// Looks for them, with handles of its own.
pub struct LeftSockets {
    maps: Maps,
}

impl LeftSockets {
    /// Over the maps that are pinned there.
    pub fn open(pins: &Pins) -> Result<Self, OpenError> {
        Ok(Self {
            maps: Maps::open(pins)?,
        })
    }

    /// Looks at every connected UDP socket; others may run in between. With `renew`, the rows of those that stay are
    /// written again.
    pub async fn look(&mut self, renew: bool) -> Result<Look, LookError> {
        let diag = Diag::open().map_err(LookError::List)?;
        // Ended only after the list: the kernel finds its place in it by counting.
        let mut left = Vec::new();
        for ipv6 in [false, true] {
            for piece in diag.list(ipv6).map_err(LookError::List)? {
                for socket in piece.map_err(LookError::List)? {
                    let row = self.left(&socket, renew)?;
                    left.extend(row.map(|row| (socket, row)));
                }
                tokio::task::yield_now().await;
            }
        }
        let mut look = Look::default();
        for (socket, row) in left {
            self.end(&diag, (&socket, &row), &mut look);
        }
        Ok(look)
    }

    /// The socket's row, if it says that weir connected it to where its frontend does not lead any more.
    fn left(&mut self, socket: &Connected, renew: bool) -> Result<Option<Socket>, MapError> {
        let key = socket.key();
        let Some(row) = self.maps.sockets.get(&key)? else {
            return Ok(None);
        };
        if !self.serves(&row)? {
            return Ok(Some(row));
        }
        // The key has the socket and the backend: only the name of the frontend can have changed since it was read.
        if renew && let Err(error) = self.maps.sockets.put(&key, &row) {
            tracing::debug!(%error, "the row of a socket was not written again; trying again");
        }
        Ok(None)
    }

    /// As the programs see it: the backend serves, and the frontend is not another Service's by now.
    fn serves(&self, row: &Socket) -> Result<bool, MapError> {
        let state = self.maps.states.get(row.backend_id)?;
        if state.generation != row.backend_generation || state.serving == 0 {
            return Ok(false);
        }
        let owner = owner((row.address, row.port), UDP, |key| self.maps.services.get(key))?;
        Ok(owner.is_none_or(|owner| owner == row.service))
    }

    fn end(&mut self, diag: &Diag, (socket, row): (&Connected, &Socket), look: &mut Look) {
        let key = socket.key();
        match diag.end(socket) {
            Ok(true) => {
                let (ip, port) = socket.local();
                let backend = key.address;
                tracing::debug!(%ip, port, %backend, backend_port = key.port, "ended a UDP socket");
                look.ended += 1;
                // It may connect to this address by itself now, and is then none of ours.
                if let Err(error) = self.maps.sockets.delete_dead(&[key], |now| now == row) {
                    tracing::debug!(%error, "the row of a socket that was ended stays");
                }
            }
            // Closed meanwhile.
            Ok(false) => {}
            Err(error) => {
                look.refused += 1;
                look.why = Some(refusal(&error));
            }
        }
    }
}

/// What it means for the operator that a socket was not ended.
fn refusal(error: &io::Error) -> String {
    let remedy = match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => {
            "use a kernel that is built with CONFIG_INET_DIAG_DESTROY, or restart these processes"
        }
        Some(libc::EPERM | libc::EACCES) => "give weir CAP_NET_ADMIN, or restart these processes",
        _ => "restart these processes",
    };
    format!(
        "processes of this node stay connected by UDP to endpoints that do not serve any more, because the kernel does not \
         end their sockets ({error}): {remedy}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let said = |number| refusal(&io::Error::from_raw_os_error(number));
        assert!(said(libc::EOPNOTSUPP).contains("CONFIG_INET_DIAG_DESTROY"));
        assert!(said(libc::EPERM).contains("CAP_NET_ADMIN"));
        assert!(said(libc::EINVAL).ends_with("restart these processes"));
    }
}
