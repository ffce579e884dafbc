//! Packets by the hundred thousand: conversations that make sense, packets that almost do, and noise.

mod conversation;
mod noise;
mod turmoil;

use anyhow::Result;

use crate::pair::Pair;
use crate::random::Random;
use crate::user::{Arrival, Outcome};

use conversation::Conversation;

/// Conversations under way at once.
const CROWD: usize = 24;

/// Makes packets from a seed, and from what became of those before.
pub struct Generator {
    random: Random,
    crowd: Vec<Conversation>,
    /// Packets of a datagram that are still to come.
    waiting: Vec<Arrival>,
}

impl Generator {
    /// Starts with nobody talking.
    pub const fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            crowd: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Runs the next packet through both worlds: 70% make sense, 20% are damaged, 10% are noise.
    pub fn step(&mut self, pair: &mut Pair) -> Result<(Arrival, Outcome)> {
        turmoil::strike(&mut self.random, pair)?;
        let arrival = match self.random.below(10) {
            0 => noise::raw(&mut self.random),
            1 | 2 => {
                let sound = self.sound().arrival;
                noise::damage(&mut self.random, sound)
            }
            _ => return self.talk(pair),
        };
        let outcome = pair.run(&arrival)?;
        Ok((arrival, outcome))
    }

    fn talk(&mut self, pair: &mut Pair) -> Result<(Arrival, Outcome)> {
        let said = self.sound();
        let outcome = pair.run(&said.arrival)?;
        if let Some(speaker) = said.speaker.and_then(|index| self.crowd.get_mut(index)) {
            speaker.hear(&said.arrival, &outcome);
        }
        Ok((said.arrival, outcome))
    }

    /// A packet that makes sense, and whose conversation it belongs to.
    fn sound(&mut self) -> Said {
        if !self.waiting.is_empty() && self.random.percent(60) {
            let index = self.random.below(self.waiting.len());
            return Said {
                arrival: self.waiting.swap_remove(index),
                speaker: None,
            };
        }
        if self.crowd.len() < CROWD || self.random.percent(6) {
            let fresh = Conversation::begin(&mut self.random, &self.crowd);
            if self.crowd.len() < CROWD {
                self.crowd.push(fresh);
            } else {
                let index = self.random.below(CROWD);
                if let Some(old) = self.crowd.get_mut(index) {
                    *old = fresh;
                }
            }
        }
        let index = self.random.below(self.crowd.len());
        let mut packets = match self.crowd.get_mut(index) {
            Some(speaker) => speaker.say(&mut self.random),
            None => Vec::new(),
        };
        if packets.is_empty() {
            return Said {
                arrival: noise::raw(&mut self.random),
                speaker: None,
            };
        }
        if packets.len() > 1 && self.random.percent(30) {
            packets.reverse();
        }
        let arrival = packets.remove(0);
        self.waiting.extend(packets);
        self.waiting.truncate(12);
        Said {
            arrival,
            speaker: Some(index),
        }
    }
}

struct Said {
    arrival: Arrival,
    speaker: Option<usize>,
}
