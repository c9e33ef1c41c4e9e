//! Where measurements go, flattened to one point per time series.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Metric, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;

use super::lock::lock;

/// One time series: a metric with one set of attributes.
///
/// # Examples
///
/// ```
/// use opentelemetry::metrics::MeterProvider;
/// use throughline_testing::MetricKind;
///
/// let capture = throughline_testing::Capture::new();
/// let meter = capture.meter_provider().meter("shop");
/// let duration = meter.f64_histogram("duration").with_unit("s").with_boundaries(vec![0.1, 1.0]).build();
/// duration.record(0.5, &[]);
///
/// let point = &capture.metrics()[0];
/// assert_eq!((point.kind, point.count, point.sum), (MetricKind::Histogram, 1, 0.5));
/// assert_eq!(point.bounds(), [0.1, 1.0]);
/// assert_eq!(point.buckets[1].count, 1);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct MetricPoint {
    /// The name of the metric.
    pub name: String,
    /// The unit, as `s` or `{message}`.
    pub unit: String,
    /// What kind of instrument measured it.
    pub kind: MetricKind,
    /// The attributes of this time series.
    pub attributes: BTreeMap<String, Value>,
    /// How many values a histogram was given; 0 for the other kinds.
    pub count: u64,
    /// The sum of a histogram, the value of a counter or gauge.
    pub sum: f64,
    /// The smallest value a histogram was given.
    pub min: Option<f64>,
    /// The largest value a histogram was given.
    pub max: Option<f64>,
    /// The buckets of a histogram; empty for the other kinds.
    pub buckets: Vec<Bucket>,
}

/// The kind of instrument behind a [`MetricPoint`].
///
/// # Examples
///
/// ```
/// use opentelemetry::metrics::MeterProvider;
/// use throughline_testing::{Capture, MetricKind};
///
/// let capture = Capture::new();
/// capture.meter_provider().meter("shop").i64_up_down_counter("in_flight").build().add(1, &[]);
/// assert_eq!(capture.metrics()[0].kind, MetricKind::UpDownCounter);
/// ```
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum MetricKind {
    /// A sum that only grows.
    Counter,
    /// A histogram with computed buckets; its buckets are not shown.
    ExponentialHistogram,
    /// The last value.
    Gauge,
    /// A histogram with fixed boundaries.
    Histogram,
    /// A sum that may shrink.
    UpDownCounter,
}

/// One bucket of a histogram.
///
/// # Examples
///
/// ```
/// use opentelemetry::metrics::MeterProvider;
///
/// let capture = throughline_testing::Capture::new();
/// let meter = capture.meter_provider().meter("shop");
/// meter.f64_histogram("duration").with_boundaries(vec![1.0]).build().record(7.0, &[]);
///
/// let last = capture.metrics()[0].buckets[1];
/// assert_eq!((last.upper, last.count), (f64::INFINITY, 1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Bucket {
    /// The largest value that falls into it; infinite for the last one.
    pub upper: f64,
    /// How many values fell into it.
    pub count: u64,
}

impl MetricPoint {
    /// Returns the boundaries of a histogram, without the infinite last one.
    pub fn bounds(&self) -> Vec<f64> {
        self.buckets.iter().map(|bucket| bucket.upper).filter(|upper| upper.is_finite()).collect()
    }

    fn new<'a>(metric: &Metric, kind: MetricKind, attributes: impl Iterator<Item = &'a KeyValue>) -> Self {
        Self {
            name: metric.name().to_owned(),
            unit: metric.unit().to_owned(),
            kind,
            attributes: attributes.map(|attribute| (attribute.key.to_string(), attribute.value.clone())).collect(),
            count: 0,
            sum: 0.0,
            min: None,
            max: None,
            buckets: Vec::new(),
        }
    }

    /// Adds what was measured since the last collection.
    fn merge(&mut self, newer: Self) {
        if matches!(self.kind, MetricKind::Gauge | MetricKind::UpDownCounter) {
            self.sum = newer.sum;
            return;
        }
        self.count += newer.count;
        self.sum += newer.sum;
        self.min = smaller(self.min, newer.min);
        self.max = larger(self.max, newer.max);
        for (bucket, newer) in self.buckets.iter_mut().zip(newer.buckets) {
            bucket.count += newer.count;
        }
    }

    fn sort_key(&self) -> String {
        format!("{} {:?}", self.name, self.attributes)
    }
}

fn smaller(left: Option<f64>, right: Option<f64>) -> Option<f64> {
    left.into_iter().chain(right).reduce(f64::min)
}

fn larger(left: Option<f64>, right: Option<f64>) -> Option<f64> {
    left.into_iter().chain(right).reduce(f64::max)
}

/// A metric exporter that adds each collection to what it has. Clones share the points.
#[derive(Clone, Debug, Default)]
pub(super) struct MetricSink {
    points: Arc<Mutex<BTreeMap<String, MetricPoint>>>,
}

impl MetricSink {
    pub(super) fn points(&self) -> Vec<MetricPoint> {
        let mut points: Vec<MetricPoint> = lock(&self.points).values().cloned().collect();
        points.sort_by_cached_key(MetricPoint::sort_key);
        points
    }

    pub(super) fn clear(&self) {
        lock(&self.points).clear();
    }
}

impl PushMetricExporter for MetricSink {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let mut points = lock(&self.points);
        for scope in metrics.scope_metrics() {
            for point in scope.metrics().flat_map(flatten) {
                let series = format!("{} {:?} {}", scope.scope().name(), point.kind, point.sort_key());
                match points.get_mut(&series) {
                    Some(known) => known.merge(point),
                    None => drop(points.insert(series, point)),
                }
            }
        }
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }

    /// Differences, so that [`MetricSink::clear`] starts from zero.
    fn temporality(&self) -> Temporality {
        Temporality::Delta
    }
}

fn flatten(metric: &Metric) -> Vec<MetricPoint> {
    match metric.data() {
        AggregatedMetrics::F64(data) => points(metric, data, |value| value),
        AggregatedMetrics::I64(data) => points(metric, data, |value| value as f64),
        AggregatedMetrics::U64(data) => points(metric, data, |value| value as f64),
    }
}

fn points<T: Copy>(metric: &Metric, data: &MetricData<T>, number: fn(T) -> f64) -> Vec<MetricPoint> {
    match data {
        MetricData::Gauge(gauge) => gauge
            .data_points()
            .map(|point| MetricPoint {
                sum: number(point.value()),
                ..MetricPoint::new(metric, MetricKind::Gauge, point.attributes())
            })
            .collect(),
        MetricData::Sum(sum) => {
            let kind = if sum.is_monotonic() { MetricKind::Counter } else { MetricKind::UpDownCounter };
            sum.data_points()
                .map(|point| MetricPoint {
                    sum: number(point.value()),
                    ..MetricPoint::new(metric, kind, point.attributes())
                })
                .collect()
        }
        MetricData::Histogram(histogram) => histogram
            .data_points()
            .map(|point| MetricPoint {
                count: point.count(),
                sum: number(point.sum()),
                min: point.min().map(number),
                max: point.max().map(number),
                buckets: buckets(point.bounds(), point.bucket_counts()),
                ..MetricPoint::new(metric, MetricKind::Histogram, point.attributes())
            })
            .collect(),
        MetricData::ExponentialHistogram(histogram) => histogram
            .data_points()
            .map(|point| MetricPoint {
                count: point.count() as u64,
                sum: number(point.sum()),
                min: point.min().map(number),
                max: point.max().map(number),
                ..MetricPoint::new(metric, MetricKind::ExponentialHistogram, point.attributes())
            })
            .collect(),
    }
}

fn buckets(bounds: impl Iterator<Item = f64>, counts: impl Iterator<Item = u64>) -> Vec<Bucket> {
    bounds.chain([f64::INFINITY]).zip(counts).map(|(upper, count)| Bucket { upper, count }).collect()
}
