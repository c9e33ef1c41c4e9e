//! How many time series a metric may have, and what is said where there are more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Metric, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{Instrument, Stream, Temporality};

use crate::error::{ExportError, ExportErrorKind};

/// How many series a metric may have where nobody says; also the SDK's own limit.
const LIMIT: usize = 2000;

/// The SDK sets memory aside for as many series of each metric.
const HIGHEST: usize = 1_000_000;

/// What the SDK puts on the series that adds up all further ones.
const OVERFLOW: &str = "otel.metric.overflow";

/// How many time series each metric may have. Its clones tell of the same excess once.
#[derive(Clone, Debug)]
pub(crate) struct Cardinality {
    limit: usize,
    /// The metrics that were told of.
    told: Arc<Mutex<BTreeSet<String>>>,
}

impl Cardinality {
    /// Fails where the limit is none.
    pub(crate) fn new(limit: usize) -> Result<Self, ExportError> {
        if (1..=HIGHEST).contains(&limit) {
            return Ok(Self { limit, told: Arc::default() });
        }
        let text = format!("the cardinality limit is {limit}: it must be from 1 to {HIGHEST}");
        Err(ExportError::new(ExportErrorKind::Configuration, text))
    }

    /// What limits the series of each instrument.
    pub(crate) fn view(&self) -> impl Fn(&Instrument) -> Option<Stream> + Send + Sync + 'static {
        let limit = self.limit;
        move |_instrument| Stream::builder().with_cardinality_limit(limit).build().ok()
    }

    /// Looks for metrics that have more series than they may.
    fn check(&self, metrics: &ResourceMetrics) {
        let all = metrics.scope_metrics().flat_map(|scope| scope.metrics());
        all.filter(|metric| is_over(metric)).for_each(|metric| self.tell(metric.name()));
    }

    /// Says once of a metric that it has too many series.
    pub(crate) fn tell(&self, metric: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.contains(metric) {
            return;
        }
        told.insert(metric.to_owned());
        drop(told);
        tracing::warn!(
            metric,
            limit = self.limit,
            "a metric has more time series than its limit: further ones are added up in one with the attribute \
             `otel.metric.overflow`; \
             leave out the attribute that has too many values, or raise `cardinality_limit`"
        );
    }
}

impl Default for Cardinality {
    fn default() -> Self {
        Self { limit: LIMIT, told: Arc::default() }
    }
}

fn is_over(metric: &Metric) -> bool {
    match metric.data() {
        AggregatedMetrics::F64(data) => has_overflow(data),
        AggregatedMetrics::I64(data) => has_overflow(data),
        AggregatedMetrics::U64(data) => has_overflow(data),
    }
}

fn has_overflow<T>(data: &MetricData<T>) -> bool {
    match data {
        MetricData::Gauge(gauge) => gauge.data_points().any(|point| is_overflow(point.attributes())),
        MetricData::Sum(sum) => sum.data_points().any(|point| is_overflow(point.attributes())),
        MetricData::Histogram(histogram) => histogram.data_points().any(|point| is_overflow(point.attributes())),
        MetricData::ExponentialHistogram(histogram) => {
            histogram.data_points().any(|point| is_overflow(point.attributes()))
        }
    }
}

fn is_overflow<'a>(mut attributes: impl Iterator<Item = &'a KeyValue>) -> bool {
    attributes.any(|attribute| attribute.key.as_str() == OVERFLOW && attribute.value == Value::Bool(true))
}

/// An exporter of metrics, and a look at how many series there are.
#[derive(Debug)]
pub(crate) struct Watched<E> {
    inner: E,
    cardinality: Cardinality,
}

impl<E> Watched<E> {
    pub(crate) fn new(inner: E, cardinality: &Cardinality) -> Self {
        Self { inner, cardinality: cardinality.clone() }
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Watched<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.cardinality.check(metrics);
        self.inner.export(metrics).await
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}
