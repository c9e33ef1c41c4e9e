//! Draws the metrics as a table.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::scale::seconds;
use crate::screen::Screen;
use crate::series::{Measured, Series};
use crate::style::{Ink, Line, clean};

/// The titles of the number columns and their widths. `~` says that it is an estimate.
const NUMBERS: [(&str, usize); 4] = [("count", 10), ("~p50", 10), ("~p95", 10), ("max", 10)];

/// Draws the measurements of services as a table, or nothing if nothing was measured.
///
/// A row of the table is a series: its service, what it is a measurement of, and for a histogram the number of values, where half and
/// 95 % of them lie (`~` says that it is an estimate), and the largest.
///
/// # Examples
///
/// ```
/// use std::collections::BTreeMap;
///
/// use throughline_waterfall::{Measured, Screen, Series, table};
///
/// let sent = Series::new("orders.sent", "{order}", [], Measured::Number(12.0));
/// let screen = Screen::new(Box::new(Vec::new()), false, 80);
/// assert!(table(&BTreeMap::from([("shop".into(), vec![sent])]), &screen).contains("orders.sent"));
/// ```
pub fn table(metrics: &BTreeMap<Arc<str>, Vec<Series>>, screen: &Screen) -> String {
    let mut by_metric: BTreeMap<&str, Vec<(&Arc<str>, &Series)>> = BTreeMap::new();
    for (service, series) in metrics {
        for series in series {
            by_metric.entry(&series.metric).or_default().push((service, series));
        }
    }
    if by_metric.is_empty() {
        return String::new();
    }
    for service in metrics.keys() {
        screen.introduce(service);
    }
    let line = || Line::new(&screen.style, screen.width);
    let label = 2 + screen.style.widest_service().min(screen.width / 5) + 1;
    let numbers = screen.width - NUMBERS.iter().map(|(_, width)| width).sum::<usize>();
    let mut table =
        numbered(line().push(Ink::Bold, "metrics"), numbers, &NUMBERS.map(|(title, _)| title.to_owned())).end();
    for (metric, mut rows) in by_metric {
        rows.sort_by_key(|(service, series)| (*service, &series.label, &series.error));
        table += &line().push(Ink::Plain, metric).end();
        for (service, series) in rows {
            let mut row = line()
                .push(Ink::Plain, "  ")
                .push_until(label - 1, screen.style.service(service), &clean(service))
                .move_to(label)
                .push_until(numbers, Ink::Plain, &series.label);
            if let Some(error) = &series.error {
                let gap = if series.label.is_empty() { "" } else { " " };
                row = row.push_until(numbers, Ink::Error, &format!("{gap}✗ {error}"));
            }
            table += &numbered(row, numbers, &values(series)).end();
        }
    }
    table.push('\n');
    table
}

/// Writes texts into the number columns.
fn numbered<'a>(mut line: Line<'a>, mut column: usize, texts: &[String; 4]) -> Line<'a> {
    for ((_, width), text) in NUMBERS.iter().zip(texts) {
        column += width;
        line = line.push_right(column, Ink::Plain, text);
    }
    line
}

fn values(series: &Series) -> [String; 4] {
    let write = |value: f64| written(value, &series.unit);
    let maybe = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), write);
    match series.value {
        Measured::Number(value) => [write(value), String::new(), String::new(), String::new()],
        // Without an estimate the mean is the next best.
        Measured::Spread { count, p50: None, p95: None, mean, max } => {
            [count.to_string(), format!("⌀ {}", write(mean)), "-".to_owned(), maybe(max)]
        }
        Measured::Spread { count, p50, p95, max, .. } => [count.to_string(), maybe(p50), maybe(p95), maybe(max)],
    }
}

/// Writes a value in its unit; a unit in braces only says what is counted.
fn written(value: f64, unit: &str) -> String {
    let number = if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    match unit {
        "s" if value >= 0.0 => seconds(value),
        "ms" if value >= 0.0 => seconds(value / 1e3),
        "" | "1" => number,
        unit if unit.starts_with('{') => number,
        unit => format!("{number} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::written;

    #[test]
    fn values_carry_their_unit() {
        for (value, unit, text) in [
            (0.0123, "s", "12.3 ms"),
            (1500.0, "ms", "1.50 s"),
            (3.0, "{message}", "3"),
            (2.5, "1", "2.50"),
            (512.0, "By", "512 By"),
        ] {
            assert_eq!(written(value, unit), text);
        }
    }
}
