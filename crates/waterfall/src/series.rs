//! What a row of the table shows.

use opentelemetry::KeyValue;

use crate::style::clean;

/// Attributes that are the same on every row, or repeat another one.
const PLUMBING: [&str; 3] = ["messaging.operation.type", "messaging.system", "server."];

/// A time series, boiled down to one row of the table.
///
/// # Examples
///
/// ```
/// use opentelemetry::KeyValue;
/// use throughline_waterfall::{Measured, Series};
///
/// let attributes = [KeyValue::new("messaging.operation.name", "publish"), KeyValue::new("tenant", "acme")];
/// let sent = Series::new("sent", "{message}", &attributes, Measured::Number(12.0));
/// assert_eq!(sent.label(), "publish tenant=acme");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub(crate) metric: String,
    pub(crate) unit: String,
    /// `publish orders.placed`, then the other attributes.
    pub(crate) label: String,
    pub(crate) error: Option<String>,
    pub(crate) value: Measured,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Measured {
    /// The value of a counter or gauge.
    Number(f64),
    /// The values of a histogram.
    #[non_exhaustive]
    Spread {
        /// How many values there are.
        count: u64,
        /// Below which value half of them lie, estimated.
        p50: Option<f64>,
        /// Below which value 95 % of them lie, estimated.
        p95: Option<f64>,
        /// Their mean.
        mean: f64,
        /// The largest of them.
        max: Option<f64>,
    },
}

impl Measured {
    /// Returns what a histogram says whose buckets are not known.
    pub fn summed(count: u64, sum: f64, max: Option<f64>) -> Self {
        let mean = if count == 0 { 0.0 } else { sum / count as f64 };
        Self::Spread { count, p50: None, p95: None, mean, max }
    }

    /// Adds the estimates to a histogram: `counts` has one bucket more than there are `bounds`.
    ///
    /// Without the smallest and the largest value there is no estimate. Buckets that do not fit the bounds are no error.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_waterfall::Measured;
    ///
    /// let spread = Measured::summed(10, 55.0, Some(10.0)).estimated(&[1.0, 10.0], &[0, 10, 0], Some(1.0));
    /// assert!(matches!(spread, Measured::Spread { p50: Some(5.5), .. }));
    /// ```
    #[must_use]
    pub fn estimated(self, bounds: &[f64], counts: &[u64], min: Option<f64>) -> Self {
        match self {
            Self::Spread { count, mean, max, .. } => {
                let quantile = |share| quantile(bounds, counts, share, min, max);
                Self::Spread { count, p50: quantile(0.5), p95: quantile(0.95), mean, max }
            }
            number @ Self::Number(_) => number,
        }
    }
}

/// Estimates below which value a share of all values lies: evenly spread within a bucket, and never outside of what
/// was measured.
fn quantile(bounds: &[f64], counts: &[u64], share: f64, min: Option<f64>, max: Option<f64>) -> Option<f64> {
    let (min, max) = (min?, max?);
    let total: f64 = counts.iter().map(|&count| count as f64).sum();
    let rank = share * total;
    let mut before = 0.0;
    for (bucket, &count) in counts.iter().enumerate() {
        let count = count as f64;
        if count > 0.0 && before + count >= rank {
            let lower = bucket.checked_sub(1).and_then(|below| bounds.get(below)).map_or(min, |bound| bound.max(min));
            let upper = bounds.get(bucket).copied().unwrap_or(max).min(max);
            return Some((lower + (upper - lower) * (rank - before) / count).max(min).min(max));
        }
        before += count;
    }
    None
}

impl Series {
    /// Creates the row of `metric` for these attributes. Names and values are made safe to print.
    pub fn new<'a>(
        metric: &str,
        unit: &str,
        attributes: impl IntoIterator<Item = &'a KeyValue>,
        value: Measured,
    ) -> Self {
        let attributes: Vec<&KeyValue> = attributes.into_iter().collect();
        let find = |key: &str| {
            let found = attributes.iter().find(|attribute| attribute.key.as_str() == key);
            found.map(|attribute| clean(&attribute.value.to_string()))
        };
        let destination = find("messaging.destination.template").or_else(|| find("messaging.destination.name"));
        let error = find("error.type");
        let mut label: Vec<String> = find("messaging.operation.name").into_iter().chain(destination).collect();
        let mut others: Vec<String> = attributes.iter().filter_map(|attribute| other(attribute)).collect();
        others.sort();
        label.append(&mut others);
        Self { metric: clean(metric), unit: clean(unit), label: label.join(" "), error, value }
    }

    /// Returns what it is a measurement of: the operation and the destination, then the other attributes.
    pub fn label(&self) -> &str {
        &self.label
    }
}

/// An attribute that is neither in the label already nor plumbing.
fn other(attribute: &KeyValue) -> Option<String> {
    let key = attribute.key.as_str();
    let shown =
        ["error.type", "messaging.operation.name", "messaging.destination.name", "messaging.destination.template"];
    let plumbing = PLUMBING.iter().any(|prefix| key.starts_with(prefix));
    if plumbing || shown.contains(&key) {
        return None;
    }
    let value = clean(&attribute.value.to_string());
    Some(match key {
        // What became of a message says enough by itself.
        "throughline.settlement" => value,
        "messaging.consumer.group.name" => format!("group={value}"),
        "messaging.destination.subscription.name" => format!("sub={value}"),
        _ => format!("{}={value}", clean(key.strip_prefix("messaging.").unwrap_or(key))),
    })
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn a_quantile_lies_where_the_values_are() {
        let bounds = [1.0, 10.0, 100.0];
        let of = |counts: &[u64], share, min, max| quantile(&bounds, counts, share, Some(min), Some(max));
        assert_eq!(of(&[0, 10, 0, 0], 0.5, 1.0, 10.0), Some(5.5));
        assert_eq!(of(&[0, 1, 0, 0], 0.95, 4.0, 4.0), Some(4.0));
        assert_eq!(of(&[9, 0, 0, 1], 0.95, 0.5, 300.0), Some(200.0));
        assert_eq!(of(&[0, 0, 0, 0], 0.5, 0.0, 0.0), None);
        assert_eq!(quantile(&bounds, &[1, 0, 0, 0], 0.5, None, None), None);
    }

    #[test]
    fn buckets_that_make_no_sense_do_no_harm() {
        for bounds in [&[][..], &[f64::NAN, f64::INFINITY], &[9.0, 1.0], &[0.0]] {
            for counts in [&[][..], &[u64::MAX, u64::MAX, u64::MAX], &[0, 0, 0, 0, 7], &[1]] {
                for (min, max) in [(5.0, 1.0), (f64::NAN, f64::NAN), (f64::NEG_INFINITY, f64::INFINITY)] {
                    quantile(bounds, counts, 0.95, Some(min), Some(max));
                }
            }
        }
    }
}
