//! Boils each time series down to what a table row shows.

use opentelemetry::KeyValue;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, HistogramDataPoint, Metric, MetricData, ResourceMetrics};

use super::style::clean;

/// Attributes that are the same on every row, or repeat another one.
const PLUMBING: [&str; 3] = ["messaging.operation.type", "messaging.system", "server."];

/// One row of the table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series {
    pub(super) metric: String,
    pub(super) unit: String,
    /// `publish orders.placed`, then the other attributes.
    pub(super) label: String,
    pub(super) error: Option<String>,
    pub(super) value: Measured,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Measured {
    /// The value of a counter or gauge.
    Number(f64),
    /// A histogram: how many values, their mean and largest, and where half and 95 % of them lie, estimated.
    Spread { count: u64, p50: Option<f64>, p95: Option<f64>, mean: f64, max: Option<f64> },
}

/// Makes rows of all that was measured, in the order of the table.
pub(super) fn rows_of(metrics: &ResourceMetrics) -> Vec<Series> {
    let mut series: Vec<Series> =
        metrics.scope_metrics().flat_map(|scope| scope.metrics()).flat_map(summarised).collect();
    series.sort_by(|left, right| {
        (&left.metric, &left.label, &left.error).cmp(&(&right.metric, &right.label, &right.error))
    });
    series
}

fn summarised(metric: &Metric) -> Vec<Series> {
    match metric.data() {
        AggregatedMetrics::F64(data) => rows(metric, data, |value| value),
        AggregatedMetrics::I64(data) => rows(metric, data, |value| value as f64),
        AggregatedMetrics::U64(data) => rows(metric, data, |value| value as f64),
    }
}

fn rows<T: Copy>(metric: &Metric, data: &MetricData<T>, number: fn(T) -> f64) -> Vec<Series> {
    match data {
        MetricData::Gauge(gauge) => {
            let points = gauge.data_points();
            points
                .map(|point| Series::new(metric, point.attributes(), Measured::Number(number(point.value()))))
                .collect()
        }
        MetricData::Sum(sum) => {
            let points = sum.data_points();
            points
                .map(|point| Series::new(metric, point.attributes(), Measured::Number(number(point.value()))))
                .collect()
        }
        MetricData::Histogram(histogram) => {
            let points = histogram.data_points();
            points.map(|point| Series::new(metric, point.attributes(), spread(point, number))).collect()
        }
        MetricData::ExponentialHistogram(histogram) => {
            let points = histogram.data_points();
            points
                .map(|point| {
                    let count = point.count() as u64;
                    let mean = mean(number(point.sum()), count);
                    let value = Measured::Spread { count, p50: None, p95: None, mean, max: point.max().map(number) };
                    Series::new(metric, point.attributes(), value)
                })
                .collect()
        }
    }
}

fn spread<T: Copy>(point: &HistogramDataPoint<T>, number: fn(T) -> f64) -> Measured {
    let (min, max) = (point.min().map(number), point.max().map(number));
    let bounds: Vec<f64> = point.bounds().collect();
    let counts: Vec<u64> = point.bucket_counts().collect();
    let quantile = |share| quantile(&bounds, &counts, share, min, max);
    let mean = mean(number(point.sum()), point.count());
    Measured::Spread { count: point.count(), p50: quantile(0.5), p95: quantile(0.95), mean, max }
}

fn mean(sum: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum / count as f64 }
}

/// Estimates below which value a share of all values lies: evenly spread within a bucket, and never outside of what
/// was measured.
fn quantile(bounds: &[f64], counts: &[u64], share: f64, min: Option<f64>, max: Option<f64>) -> Option<f64> {
    let (min, max) = (min?, max?);
    let total: u64 = counts.iter().sum();
    let rank = share * total as f64;
    let mut before = 0.0;
    for (bucket, &count) in counts.iter().enumerate() {
        let count = count as f64;
        if count > 0.0 && before + count >= rank {
            let lower = if bucket == 0 { min } else { bounds[bucket - 1].max(min) };
            let upper = bounds.get(bucket).copied().unwrap_or(max).min(max);
            return Some((lower + (upper - lower) * (rank - before) / count).clamp(min, max));
        }
        before += count;
    }
    None
}

impl Series {
    fn new<'a>(metric: &Metric, attributes: impl Iterator<Item = &'a KeyValue>, value: Measured) -> Self {
        let attributes: Vec<&KeyValue> = attributes.collect();
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
        Self { metric: clean(metric.name()), unit: metric.unit().to_owned(), label: label.join(" "), error, value }
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
        _ => format!("{}={value}", key.strip_prefix("messaging.").unwrap_or(key)),
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
}
