//! What services measured, until the table is drawn.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry::KeyValue;
use throughline_waterfall::{Measured, Series};

/// How many series are held at most, those of each instance of a service counted.
const SERIES: usize = 5_000;

/// A point of a time series, as it came.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) service: Arc<str>,
    /// Tells instances of the service apart.
    pub(super) instance: Arc<str>,
    pub(super) metric: Arc<str>,
    pub(super) unit: Arc<str>,
    pub(super) attributes: Vec<KeyValue>,
    /// Whether it is to be added to what was there, and not to replace it.
    pub(super) is_delta: bool,
    pub(super) value: Value,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// The last value counts.
    Gauge(f64),
    /// Values of several instances add up.
    Sum(f64),
    /// So do these.
    Histogram(Histogram),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    pub(super) count: u64,
    pub(super) sum: f64,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    /// Empty where they are not known.
    pub(super) bounds: Vec<f64>,
    pub(super) counts: Vec<u64>,
}

/// All series, by service, metric and attributes.
#[derive(Debug, Default)]
pub(super) struct Measurements {
    series: BTreeMap<(Arc<str>, Arc<str>, String), Entry>,
    count: usize,
}

#[derive(Debug)]
struct Entry {
    unit: Arc<str>,
    attributes: Vec<KeyValue>,
    instances: BTreeMap<Arc<str>, Value>,
}

impl Measurements {
    /// Takes a point; returns whether there was room for its series.
    pub(super) fn take(&mut self, mut point: Point) -> bool {
        point.attributes.sort_by(|left, right| left.key.cmp(&right.key));
        let attributes = point.attributes.iter().map(|attribute| format!("{}={}\n", attribute.key, attribute.value));
        let key = (point.service, point.metric, attributes.collect::<String>());
        let known = self.series.get_mut(&key).and_then(|entry| entry.instances.get_mut(&point.instance));
        if let Some(known) = known {
            *known = if point.is_delta { known.plus(point.value) } else { point.value };
            return true;
        }
        if self.count >= SERIES {
            return false;
        }
        self.count += 1;
        let (unit, attributes) = (point.unit, point.attributes);
        let entry = self.series.entry(key).or_insert_with(|| Entry { unit, attributes, instances: BTreeMap::new() });
        entry.instances.insert(point.instance, point.value);
        true
    }

    /// Returns a row for each series, with its instances as one.
    pub(super) fn series(&self) -> BTreeMap<Arc<str>, Vec<Series>> {
        let mut rows: BTreeMap<Arc<str>, Vec<Series>> = BTreeMap::new();
        for ((service, metric, _), entry) in &self.series {
            if let Some(value) = entry.instances.values().cloned().reduce(|sum, value| sum.plus(value)) {
                let row = Series::new(metric, &entry.unit, &entry.attributes, value.measured());
                rows.entry(service.clone()).or_default().push(row);
            }
        }
        rows
    }
}

impl Value {
    /// What both are together; the later one where they cannot be added.
    fn plus(&self, later: Self) -> Self {
        match (self, later) {
            (Self::Sum(sum), Self::Sum(more)) => Self::Sum(sum + more),
            (Self::Histogram(known), Self::Histogram(more)) => Self::Histogram(known.plus(more)),
            (_, later) => later,
        }
    }

    fn measured(&self) -> Measured {
        match self {
            Self::Gauge(value) | Self::Sum(value) => Measured::Number(*value),
            Self::Histogram(values) => {
                let summed = Measured::summed(values.count, values.sum, values.max);
                summed.estimated(&values.bounds, &values.counts, values.min)
            }
        }
    }
}

impl Histogram {
    /// Where the buckets are not the same, none are left.
    fn plus(&self, more: Self) -> Self {
        let is_same = self.bounds == more.bounds && self.counts.len() == more.counts.len();
        let counts = self.counts.iter().zip(&more.counts).map(|(left, right)| left.saturating_add(*right));
        Self {
            count: self.count.saturating_add(more.count),
            sum: self.sum + more.sum,
            min: both(self.min, more.min, f64::min),
            max: both(self.max, more.max, f64::max),
            counts: if is_same { counts.collect() } else { Vec::new() },
            bounds: if is_same { more.bounds } else { Vec::new() },
        }
    }
}

/// One that is not known makes the other one unknown, too.
fn both(left: Option<f64>, right: Option<f64>, of: fn(f64, f64) -> f64) -> Option<f64> {
    Some(of(left?, right?))
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;
    use throughline_waterfall::{Measured, Series};

    use super::{Histogram, Measurements, Point, SERIES, Value};

    fn point(instance: &str, value: Value) -> Point {
        Point {
            service: "shop".into(),
            instance: instance.into(),
            metric: "sent".into(),
            unit: "".into(),
            attributes: vec![KeyValue::new("b", 1), KeyValue::new("a", 2)],
            is_delta: false,
            value,
        }
    }

    fn histogram(counts: &[u64]) -> Value {
        let count = counts.iter().sum();
        let (min, max) = (Some(0.0), Some(10.0));
        let (bounds, counts) = (vec![5.0; counts.len() - 1], counts.to_vec());
        Value::Histogram(Histogram { count, sum: 1.0, min, max, bounds, counts })
    }

    fn only(measurements: &Measurements) -> Series {
        let rows: Vec<Series> = measurements.series().into_values().flatten().collect();
        assert_eq!(rows.len(), 1);
        rows[0].clone()
    }

    fn row(measured: Measured) -> Series {
        Series::new("sent", "", &[KeyValue::new("a", 2), KeyValue::new("b", 1)], measured)
    }

    #[test]
    fn a_later_point_replaces_unless_it_says_what_is_to_be_added() {
        let mut measurements = Measurements::default();
        for value in [3.0, 5.0] {
            assert!(measurements.take(point("1", Value::Sum(value))));
        }
        assert_eq!(only(&measurements), row(Measured::Number(5.0)));
        assert!(measurements.take(Point { is_delta: true, ..point("1", Value::Sum(2.0)) }));
        assert_eq!(only(&measurements), row(Measured::Number(7.0)));
    }

    #[test]
    fn the_instances_of_a_service_are_one_row() {
        let mut measurements = Measurements::default();
        for instance in ["1", "2"] {
            measurements.take(point(instance, histogram(&[3, 1])));
        }
        let Value::Histogram(both) = histogram(&[6, 2]) else { unreachable!() };
        let measured = Measured::summed(8, 2.0, Some(10.0)).estimated(&both.bounds, &both.counts, Some(0.0));
        assert_eq!(only(&measurements), row(measured));
    }

    #[test]
    fn other_buckets_leave_the_count() {
        let mut measurements = Measurements::default();
        measurements.take(point("1", histogram(&[3, 1])));
        measurements.take(point("2", histogram(&[3, 1, 1])));
        assert_eq!(only(&measurements), row(Measured::summed(9, 2.0, Some(10.0))));
    }

    #[test]
    fn series_are_bounded() {
        let mut measurements = Measurements::default();
        for instance in 0..SERIES {
            assert!(measurements.take(point(&instance.to_string(), Value::Sum(1.0))));
        }
        assert!(!measurements.take(point("new", Value::Sum(1.0))));
        assert!(measurements.take(point("0", Value::Sum(1.0))));
        assert_eq!(only(&measurements), row(Measured::Number(SERIES as f64)));
    }
}
