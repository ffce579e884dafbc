//! Medians, and how sure they are.

use std::fmt;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 10_000;

/// A median with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The median.
    pub median: f64,
    /// Where the interval begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.3} ({:.3}…{:.3})", self.median, self.low, self.high))
    }
}

/// The median; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    quantile(&mut values.to_vec(), 0.5)
}

/// The value at a place between 0 and 1, with linear interpolation.
pub fn quantile(values: &mut [f64], place: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else {
        return 0.0;
    };
    #[expect(clippy::cast_precision_loss, reason = "thousands of values at most")]
    let at = place * last as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the last index"
    )]
    let below = at.floor() as usize;
    let value = |index: usize| values.get(index.min(last)).copied().unwrap_or_default();
    let (low, high) = (value(below), value(below + 1));
    low + (high - low) * at.fract()
}

/// The median of paired ratios, by bootstrap over the pairs.
///
/// The same ratios always give the same interval: the random numbers have a fixed seed.
pub fn estimate(ratios: &[f64]) -> Estimate {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut draw = || {
        ratios
            .get(rng.random_range(0..ratios.len().max(1)))
            .copied()
            .unwrap_or_default()
    };
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let mut sample: Vec<f64> = (0..ratios.len()).map(|_| draw()).collect();
            quantile(&mut sample, 0.5)
        })
        .collect();
    Estimate {
        median: median(ratios),
        low: quantile(&mut medians, 0.025),
        high: quantile(&mut medians, 0.975),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        assert!((median(&[4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < 1e-9);
        assert!((median(&[]) - 0.0).abs() < 1e-9);
    }

    #[test]
    fn the_interval_holds_the_median_and_is_narrow_when_all_agree() {
        let spread: Vec<f64> = (0..25).map(|i| 0.9 + f64::from(i) * 0.01).collect();
        let wide = estimate(&spread);
        assert!(wide.low < wide.median && wide.median < wide.high);
        assert!(wide.low > 0.9 && wide.high < 1.14);
        let narrow = estimate(&[0.98; 15]);
        assert!((narrow.high - narrow.low).abs() < 1e-9);
    }

    #[test]
    fn the_same_ratios_give_the_same_interval() {
        let ratios = [0.9, 1.0, 1.1, 0.95, 1.05];
        assert_eq!(estimate(&ratios), estimate(&ratios));
    }
}
