//! Reads along which frames an HTTP/2 client sends, for one purpose: frames that carry nothing come at a bounded rate.
//!
//! h2 answers each PING and SETTINGS, reads each `WINDOW_UPDATE` and skips what it does not know, as fast as they come: a client
//! that sends nothing else has the worker to itself. Here each such frame is counted, what is carried in either direction
//! takes from the count (a download needs `WINDOW_UPDATE`s, and gRPC measures with PINGs), and so does time. A connection that
//! has too many is read again when the worker next looks after it (tend.rs): whoever means well never notices, and nobody is
//! closed for being lively.

/// What is in front of each frame (RFC 9113 4.1).
const HEADER: usize = 9;
/// The client's first words (RFC 9113 3.4) are no frame.
const PREFACE: usize = 24;
/// So many bytes make up for one frame that carries nothing.
const BYTES_A_FRAME: usize = 128;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// A reader of one connection.
#[derive(Debug)]
pub(crate) struct Frames {
    /// Bytes to come until the next frame.
    left: usize,
    header: [u8; HEADER],
    /// How much of the header is there.
    have: usize,
    /// Frames that carry nothing, beyond those that are made up for.
    idle: u32,
}

impl Frames {
    pub(crate) fn new() -> Self {
        Self {
            left: PREFACE,
            header: [0; HEADER],
            have: 0,
            idle: 0,
        }
    }

    /// How many carried nothing.
    pub(crate) fn idle(&self) -> u32 {
        self.idle
    }

    /// Something makes up for so many.
    pub(crate) fn forget(&mut self, frames: u32) {
        self.idle = self.idle.saturating_sub(frames);
    }

    /// So many bytes were sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.forget(u32::try_from(bytes / BYTES_A_FRAME).unwrap_or(u32::MAX));
    }

    /// Looks at what was read.
    pub(crate) fn look(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let wanted = if self.left > 0 {
                self.left
            } else {
                HEADER - self.have
            };
            let (now, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            if self.left > 0 {
                self.left -= now.len();
                continue;
            }
            for (place, byte) in self.header.iter_mut().skip(self.have).zip(now) {
                *place = *byte;
            }
            self.have += now.len();
            if self.have == HEADER {
                self.have = 0;
                self.begins();
            }
        }
    }

    /// A frame begins.
    fn begins(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.header;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.left = length;
        match kind {
            DATA if length > 0 => self.sent(length),
            // h2 itself bounds how long a head may go on.
            HEADERS | CONTINUATION => {}
            DATA if flags & END_STREAM != 0 => {}
            _ => self.idle = self.idle.saturating_add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let [_, high, middle, low] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![high, middle, low, kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    fn talk() -> Vec<u8> {
        let mut talk = vec![b'P'; PREFACE];
        talk.extend(frame(4, 0, &[0; 6])); // SETTINGS
        talk.extend(frame(HEADERS, 4, &[6; 40]));
        talk.extend(frame(DATA, 0, &[]));
        talk.extend(frame(DATA, 0, &[6; 100]));
        talk.extend(frame(6, 0, &[6; 8])); // PING
        talk.extend(frame(8, 0, &[6; 4])); // WINDOW_UPDATE
        talk.extend(frame(0x2a, 0, &[])); // Nobody knows it.
        talk.extend(frame(DATA, END_STREAM, &[]));
        talk
    }

    #[test]
    fn frames_that_carry_nothing_are_counted_however_they_are_cut() {
        let talk = talk();
        for piece in 1..=talk.len() {
            let mut frames = Frames::new();
            for bytes in talk.chunks(piece) {
                frames.look(bytes);
            }
            assert_eq!(frames.idle(), 5, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_carried_makes_up_for_them() {
        let mut frames = Frames::new();
        frames.look(&talk());
        frames.look(&frame(DATA, 0, &[0; 256]));
        assert_eq!(frames.idle(), 3);
        frames.sent(130);
        frames.sent(100);
        assert_eq!(frames.idle(), 2);
        frames.forget(9);
        assert_eq!(frames.idle(), 0);
    }
}
