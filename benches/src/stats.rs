//! Median and spread.

use serde_json::{Value, json};

/// Numbers, by their order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// A quarter is below.
    pub low: f64,
    /// Half is below.
    pub median: f64,
    /// A quarter is above.
    pub high: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Takes the numbers of all rounds; zeros where there are none.
    #[must_use]
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |part: usize| match sorted.len() {
            0 => 0.0,
            length => {
                let (index, rest) = ((length - 1) * part / 4, (length - 1) * part % 4);
                let next = sorted[(index + 1).min(length - 1)];
                sorted[index] + (next - sorted[index]) * [0.0, 0.25, 0.5, 0.75][rest]
            }
        };
        Self { min: at(0), low: at(1), median: at(2), high: at(3), max: at(4) }
    }

    pub(crate) fn json(self) -> Value {
        json!([self.min, self.low, self.median, self.high, self.max].map(rounded))
    }
}

/// Ours next to the baseline.
#[derive(Clone, Copy, Debug)]
pub struct Compared {
    /// Ours.
    pub ours: Spread,
    /// The baseline.
    pub baseline: Spread,
    /// Ours by the baseline, round by round.
    pub ratio: Spread,
}

impl Compared {
    /// Takes the numbers of both, in the order of the rounds.
    #[must_use]
    pub fn of(ours: &[f64], baseline: &[f64]) -> Self {
        Self {
            ours: Spread::of(ours.iter().copied()),
            baseline: Spread::of(baseline.iter().copied()),
            ratio: Spread::of(ours.iter().zip(baseline).map(|(ours, baseline)| ours / baseline)),
        }
    }

    /// Returns the medians, and the spreads they come from.
    pub(crate) fn json(self) -> Value {
        let Self { ours, baseline, ratio } = self;
        json!({
            "ours": rounded(ours.median),
            "baseline": rounded(baseline.median),
            "ratio": rounded(ratio.median),
            "spread": { "ours": ours.json(), "baseline": baseline.json(), "ratio": ratio.json() },
        })
    }
}

pub(crate) fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_the_numbers() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]);
        assert_eq!(spread, Spread { min: 1.0, low: 1.75, median: 2.5, high: 3.25, max: 4.0 });
        assert_eq!(Spread::of([7.0]), Spread { min: 7.0, low: 7.0, median: 7.0, high: 7.0, max: 7.0 });
        assert_eq!(Spread::of([]), Spread::default());
    }
}
