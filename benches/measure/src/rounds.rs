//! Rounds: whatever else the machine does meets every arm alike.

use std::io::{IsTerminal, Write};

/// The order of a round: each arm is first in turn, and every other round runs backwards.
pub fn order(count: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.rotate_left((round / 2) % count.max(1));
    if !round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

/// Shows how far it is.
pub fn tell(round: usize, rounds: usize) {
    if std::io::stderr().is_terminal() {
        eprint!("\rround {round} of {rounds} ");
        let _lost = std::io::stderr().flush();
    } else if round.is_multiple_of(8) {
        eprintln!("round {round} of {rounds}");
    }
}

/// Ends the line that [`tell`] wrote.
pub fn told() {
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn every_arm_is_at_every_place_equally_often() {
        let mut seen = [[0; 4]; 4];
        for round in 0..8 {
            for (place, arm) in order(4, round).into_iter().enumerate() {
                seen[arm][place] += 1;
            }
        }
        assert_eq!(seen, [[2; 4]; 4]);
    }
}
