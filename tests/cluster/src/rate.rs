//! Whether a load was one.

use anyhow::{Result, ensure};

/// A second, of all loads together: less is no load.
const FLOOR: u64 = 500;

/// The loads were together what they claim to be: how many of `what` each had, and in how many milliseconds.
///
/// # Errors
///
/// If there were fewer.
pub fn fast_enough(what: &str, loads: impl Iterator<Item = (u64, u64)>) -> Result<()> {
    let (sum, longest) = loads.fold((0, 0), |(sum, longest): (u64, u64), (count, milliseconds)| {
        (sum + count, longest.max(milliseconds))
    });
    let rate = sum * 1000 / longest.max(1);
    println!("{sum} {what} in {longest} ms: {rate} a second");
    ensure!(rate >= FLOOR, "{rate} {what} a second are no load: {FLOOR} are");
    Ok(())
}
