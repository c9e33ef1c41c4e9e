//! Boils what the SDK measured down to rows of the table.

use opentelemetry::KeyValue;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, HistogramDataPoint, Metric, MetricData, ResourceMetrics};
use throughline_waterfall::{Measured, Series};

/// Makes rows of all that was measured.
pub(super) fn rows_of(metrics: &ResourceMetrics) -> Vec<Series> {
    metrics.scope_metrics().flat_map(|scope| scope.metrics()).flat_map(summarised).collect()
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
            points.map(|point| series(metric, point.attributes(), Measured::Number(number(point.value())))).collect()
        }
        MetricData::Sum(sum) => {
            let points = sum.data_points();
            points.map(|point| series(metric, point.attributes(), Measured::Number(number(point.value())))).collect()
        }
        MetricData::Histogram(histogram) => {
            let points = histogram.data_points();
            points.map(|point| series(metric, point.attributes(), spread(point, number))).collect()
        }
        MetricData::ExponentialHistogram(histogram) => {
            let points = histogram.data_points();
            points
                .map(|point| {
                    let (count, sum) = (point.count() as u64, number(point.sum()));
                    series(metric, point.attributes(), Measured::summed(count, sum, point.max().map(number)))
                })
                .collect()
        }
    }
}

fn series<'a>(metric: &Metric, attributes: impl Iterator<Item = &'a KeyValue>, value: Measured) -> Series {
    Series::new(metric.name(), metric.unit(), attributes, value)
}

fn spread<T: Copy>(point: &HistogramDataPoint<T>, number: fn(T) -> f64) -> Measured {
    let bounds: Vec<f64> = point.bounds().collect();
    let counts: Vec<u64> = point.bucket_counts().collect();
    let spread = Measured::summed(point.count(), number(point.sum()), point.max().map(number));
    spread.estimated(&bounds, &counts, point.min().map(number))
}
