//! Measurements.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, HistogramDataPoint, Metric, NumberDataPoint};

use super::value::attributes;
use super::{NAME, Reading, Sender};
use crate::view::measurements::{Histogram, Point, Value};

/// How many bounds of buckets a histogram has at most; with more it is shown without estimates.
const BOUNDS: usize = 512;

/// Reads the points of gauges, sums and histograms. Summaries are counted as lost.
pub(in super::super) fn points(request: ExportMetricsServiceRequest, reading: &mut Reading) -> Vec<Point> {
    let mut points = Vec::new();
    for resource in request.resource_metrics {
        let sender = reading.sender(resource.resource);
        for metric in resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
            add(metric, &sender, &mut points, reading);
        }
    }
    points
}

fn add(metric: Metric, sender: &Sender, points: &mut Vec<Point>, reading: &mut Reading) {
    let name: Arc<str> = reading.cut(metric.name, NAME).into();
    let unit: Arc<str> = reading.cut(metric.unit, NAME).into();
    let mut push = |list: Vec<KeyValue>, is_delta: bool, value: Value| {
        points.push(Point {
            service: sender.service.clone(),
            instance: sender.instance.clone(),
            metric: name.clone(),
            unit: unit.clone(),
            attributes: attributes(list, reading),
            is_delta,
            value,
        });
    };
    let is_delta = |temporality: i32| temporality == AggregationTemporality::Delta as i32;
    let mut lost = 0;
    match metric.data {
        Some(Data::Gauge(gauge)) => {
            for point in gauge.data_points {
                match number(&point) {
                    Some(value) => push(point.attributes, false, Value::Gauge(value)),
                    None => lost += 1,
                }
            }
        }
        Some(Data::Sum(sum)) => {
            for point in sum.data_points {
                match number(&point) {
                    Some(value) => push(point.attributes, is_delta(sum.aggregation_temporality), Value::Sum(value)),
                    None => lost += 1,
                }
            }
        }
        Some(Data::Histogram(histogram)) => {
            for mut point in histogram.data_points {
                let list = std::mem::take(&mut point.attributes);
                push(list, is_delta(histogram.aggregation_temporality), Value::Histogram(buckets(point)));
            }
        }
        Some(Data::ExponentialHistogram(histogram)) => {
            for point in histogram.data_points {
                let values = Histogram {
                    count: point.count,
                    sum: point.sum.unwrap_or_default(),
                    min: point.min,
                    max: point.max,
                    bounds: Vec::new(),
                    counts: Vec::new(),
                };
                push(point.attributes, is_delta(histogram.aggregation_temporality), Value::Histogram(values));
            }
        }
        Some(Data::Summary(summary)) => lost += summary.data_points.len() as u64,
        None => lost += 1,
    }
    reading.losses.points += lost;
}

fn number(point: &NumberDataPoint) -> Option<f64> {
    match point.value? {
        Number::AsDouble(value) => Some(value),
        Number::AsInt(value) => Some(value as f64),
    }
}

fn buckets(point: HistogramDataPoint) -> Histogram {
    let known = point.explicit_bounds.len() <= BOUNDS && point.bucket_counts.len() <= BOUNDS + 1;
    Histogram {
        count: point.count,
        sum: point.sum.unwrap_or_default(),
        min: point.min,
        max: point.max,
        bounds: if known { point.explicit_bounds } else { Vec::new() },
        counts: if known { point.bucket_counts } else { Vec::new() },
    }
}
