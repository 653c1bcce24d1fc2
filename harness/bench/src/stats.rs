//! Statistics of repeated measurements.

use serde::{Deserialize, Serialize};

/// The order statistics of a sample. The median, because a single slow run (an
/// interrupt, another process) moves a mean and says nothing about the thing
/// measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The number of measurements.
    pub n: usize,
    /// The smallest measurement.
    pub min: f64,
    /// The first quartile.
    pub q1: f64,
    /// Half of the measurements are below.
    pub median: f64,
    /// The third quartile.
    pub q3: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The largest measurement.
    pub max: f64,
}

impl Summary {
    /// Summarizes a sample; `None` if it is empty or holds a value that is not
    /// finite.
    pub fn of(sample: &[f64]) -> Option<Summary> {
        if sample.is_empty() || sample.iter().any(|x| !x.is_finite()) {
            return None;
        }
        let mut sorted = sample.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share| quantile(&sorted, share);
        Some(Summary {
            n: sorted.len(),
            min: at(0.0),
            q1: at(0.25),
            median: at(0.5),
            q3: at(0.75),
            p95: at(0.95),
            max: at(1.0),
        })
    }

    /// Multiplies every figure except `n` by `factor`, to convert the unit.
    #[must_use]
    pub fn scaled(mut self, factor: f64) -> Summary {
        for figure in [
            &mut self.min,
            &mut self.q1,
            &mut self.median,
            &mut self.q3,
            &mut self.p95,
            &mut self.max,
        ] {
            *figure *= factor;
        }
        self
    }
}

/// The value below which `share` (0 to 1) of a sorted sample lies, interpolated
/// linearly between the two nearest measurements.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (low, part) = (place.floor(), place.fract());
    let below = sorted[low as usize];
    let above = sorted[place.ceil() as usize];
    below + (above - below) * part
}

/// A figure with three significant digits and at most three decimals: `7.63`,
/// `147`, `0.012`.
pub fn figure(value: f64) -> String {
    let digits = match value.abs() {
        x if x >= 99.95 || x == 0.0 => 0,
        x if x >= 9.995 => 1,
        x if x >= 0.9995 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// The spread from the first quartile to the third: `1.20 … 1.50`.
pub fn spread(summary: &Summary) -> String {
    format!("{} … {}", figure(summary.q1), figure(summary.q3))
}

/// A ratio: `2.29×`.
pub fn ratio(value: f64) -> String {
    format!("{}×", figure(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_the_measurements() {
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0, 5.0]).unwrap();
        assert_eq!((summary.n, summary.median), (5, 3.0));
        assert_eq!((summary.min, summary.max), (1.0, 5.0));
        assert_eq!((summary.q1, summary.q3), (2.0, 4.0));
        assert!((summary.p95 - 4.8).abs() < 1e-9);
        let two = Summary::of(&[1.0, 2.0]).unwrap();
        assert_eq!(two.median, 1.5);
        assert_eq!(two.scaled(1000.0).median, 1500.0);
        assert_eq!(Summary::of(&[7.0]).unwrap().p95, 7.0);
    }

    #[test]
    fn nothing_comes_of_nothing() {
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[f64::NAN]), None);
    }

    #[test]
    fn figures_have_three_digits() {
        let figures = [0.0, 0.0123, 0.5, 7.634, 22.71, 147.2, 1500.0].map(figure);
        let expected = ["0", "0.012", "0.500", "7.63", "22.7", "147", "1500"];
        assert_eq!(figures, expected);
        assert_eq!(ratio(2.29), "2.29×");
    }
}
