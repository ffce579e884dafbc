//! What probes are told.

use std::sync::atomic::{AtomicU8, Ordering};

/// How far the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Not everything has been read.
    Starting,
    /// Clients are answered.
    Serving,
    /// It goes: others should be sent to.
    Leaving,
}

/// The stage, from the loop to whoever asks.
#[derive(Debug, Default)]
pub struct Probes(AtomicU8);

impl Probes {
    /// It is another one now.
    pub fn set(&self, stage: Stage) {
        self.0.store(stage as u8, Ordering::Relaxed);
    }

    /// What it is now.
    pub fn stage(&self) -> Stage {
        match self.0.load(Ordering::Relaxed) {
            0 => Stage::Starting,
            1 => Stage::Serving,
            _ => Stage::Leaving,
        }
    }

    /// `/readyz`: the status, and a word for people.
    pub fn ready(&self) -> (u16, &'static str) {
        match self.stage() {
            Stage::Starting => (503, "not everything has been read yet\n"),
            Stage::Serving => (200, "ok\n"),
            Stage::Leaving => (503, "it ends\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_only_between_start_and_end() {
        let probes = Probes::default();
        assert_eq!(probes.ready().0, 503);
        probes.set(Stage::Serving);
        assert_eq!(probes.ready().0, 200);
        probes.set(Stage::Leaving);
        assert_eq!(probes.ready().0, 503);
    }
}
