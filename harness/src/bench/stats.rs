//! What many measurements of one thing come to.

use serde::{Deserialize, Serialize};

/// The order statistics of a sample. A median, because a single slow run (an
/// interrupt, another process) moves a mean and says nothing of the thing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many measurements.
    pub n: usize,
    /// The smallest.
    pub min: f64,
    /// A quarter is below.
    pub q1: f64,
    /// Half is below.
    pub median: f64,
    /// Three quarters are below.
    pub q3: f64,
    /// Of a hundred, 95 are below.
    pub p95: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Of a sample; nothing of an empty one, or of one that holds no number.
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

    /// All figures times `factor`: from one unit into another.
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

/// The value below which this share of a sorted sample lies, by a straight line
/// between the two that are nearest.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (low, part) = (place.floor(), place.fract());
    let below = sorted[low as usize];
    let above = sorted[place.ceil() as usize];
    below + (above - below) * part
}

/// A figure with three significant digits, and no more than it needs: `7.6`,
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

/// A spread: from the first quartile to the third.
pub fn spread(summary: &Summary) -> String {
    format!("{} … {}", figure(summary.q1), figure(summary.q3))
}

/// A ratio: `2.3×`.
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
