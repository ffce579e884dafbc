//! The ring buffer of events, as an async stream of typed records.

use std::io;

use aya::maps::{MapData, RingBuf};
use proxy_common::{Event, maps as names};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::bpffs::{self, Lock};
use super::maps::{OpenError, convert};
use super::pins::Pins;
use super::sys;

/// Reads `EVENTS`. There is one reader at a time: the ring has one consumer position.
pub struct EventReader {
    _lock: Lock,
    ring: AsyncFd<RingBuf<MapData>>,
}

impl EventReader {
    /// Opens the pinned ring; must be called inside a tokio runtime with IO.
    pub fn open(pins: &Pins) -> Result<Self, OpenError> {
        let ring: RingBuf<MapData> = convert(pins, names::EVENTS)?;
        let lock = bpffs::lock_events(pins)?;
        let ring = sys::readable(ring).map_err(|source| OpenError::Syscall {
            path: pins.map(names::EVENTS),
            source,
        })?;
        Ok(Self { _lock: lock, ring })
    }

    /// Throws away what was written before now, so that a new listener does not see an old one's rest.
    pub fn discard(&mut self) {
        while self.ring.get_mut().next().is_some() {}
    }

    /// Waits for events and returns all that are there. Cancel-safe: an event is taken when it is returned.
    pub async fn next(&mut self) -> io::Result<Vec<Event>> {
        loop {
            let mut events = Vec::new();
            while let Some(record) = self.ring.get_mut().next() {
                events.extend(sys::event(&record));
            }
            if !events.is_empty() {
                return Ok(events);
            }
            self.ring.ready_mut(Interest::READABLE).await?.clear_ready();
        }
    }
}
