//! The table that a reader of the guide needs, from the tables of all runs.

use std::fmt::Write;

/// A line of the table, and the rows of the runs that it comes from.
struct Line {
    title: &'static str,
    untraced: &'static str,
    traced: &'static str,
    unit: Unit,
}

/// What the numbers of a run are.
#[derive(Clone, Copy)]
enum Unit {
    /// Nanoseconds per message, and what spans add to them.
    Nanoseconds,
    /// Messages per second.
    PerSecond,
}

const LINES: [Line; 10] = [
    Line {
        title: "in memory: publish and handle",
        untraced: "framework: single, untraced",
        traced: "framework: single, sampled",
        unit: Unit::Nanoseconds,
    },
    Line {
        title: "the same, with metrics too",
        untraced: "framework: single, untraced",
        traced: "framework: single, sampled and metrics",
        unit: Unit::Nanoseconds,
    },
    Line::on_server("core NATS: publish", "core publish, one by one"),
    Line::on_server("core NATS: handle", "core consume"),
    Line::on_server("JetStream: publish, and wait for each", "JetStream publish, one by one"),
    Line::on_server("JetStream: publish, 256 at a time", "JetStream publish, 256 in flight"),
    Line::on_server("JetStream: handle", "JetStream consume"),
    Line::on_server("Kafka: publish, and wait for each", "publish, one by one"),
    Line::on_server("Kafka: publish, 256 at a time", "publish, 256 in flight"),
    Line::on_server("Kafka: handle, one partition", "consume, one partition"),
];

/// How the programs of a run on a server are called behind the name of what they do.
const UNTRACED: &str = ": untraced, to the plain client";
const TRACED: &str = ": traced, to spans by hand";

/// What handlers do, by experience: nothing here measures it.
const HANDLERS: [(&str, &str); 4] = [
    ("reads a kilobyte of JSON", "1 to 10"),
    ("asks a database nearby", "300 to 2,000"),
    ("waits for a disk", "100 to 10,000"),
    ("calls another service", "1,000 to 100,000"),
];

impl Line {
    const fn on_server(title: &'static str, rows: &'static str) -> Self {
        Self { title, untraced: rows, traced: rows, unit: Unit::PerSecond }
    }

    /// Ours and the other side, in microseconds: without spans, then with.
    fn numbers(&self, measurements: &str) -> Option<[f64; 4]> {
        Some(match self.unit {
            Unit::Nanoseconds => {
                let (ours, by_hand) = row(measurements, self.untraced)?;
                let (added, added_by_hand) = row(measurements, self.traced)?;
                [by_hand, by_hand + added_by_hand, ours, ours + added].map(|nanoseconds| nanoseconds / 1e3)
            }
            Unit::PerSecond => {
                let (ours, client) = row(measurements, &format!("{}{UNTRACED}", self.untraced))?;
                let (traced, by_hand) = row(measurements, &format!("{}{TRACED}", self.traced))?;
                [client, by_hand, ours, traced].map(|rate| 1e6 / rate)
            }
        })
    }
}

/// Writes the table, in microseconds for a message; a case that was not measured is left out.
#[must_use]
pub fn summary(measurements: &str) -> String {
    let mut text = String::from(
        "| microseconds for a message | the client alone | with spans by hand | Throughline without spans | with spans |\n\
         | --- | ---: | ---: | ---: | ---: |\n",
    );
    for line in &LINES {
        let Some(numbers) = line.numbers(measurements) else { continue };
        let _ = writeln!(text, "| {} | {} |", line.title, numbers.map(rounded).join(" | "));
    }
    for (what, microseconds) in HANDLERS {
        let _ = writeln!(text, "| *for comparison: a handler that {what}* | *{microseconds}* | | | |");
    }
    text
}

fn rounded(microseconds: f64) -> String {
    if microseconds < 10.0 { format!("{microseconds:.1}") } else { format!("{microseconds:.0}") }
}

/// The first two numbers of the row that has this name.
fn row(tables: &str, name: &str) -> Option<(f64, f64)> {
    let cells = tables.lines().map(|line| line.trim_matches('|').split('|').map(str::trim));
    let mut numbers = cells.filter(|cells| cells.clone().next() == Some(name)).map(|cells| cells.skip(1)).next()?;
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::replace_block;

    const MEASUREMENTS: &str = include_str!("../../docs/src/cost/measurements.md");

    #[test]
    fn nanoseconds_are_added_to_the_untraced_message_and_rates_are_turned_round() {
        let tables = "| framework: single, untraced | 470 | 109 | 4.35 |\n| framework: single, sampled | 1710 | 1145 |\n\
            | core consume: untraced, to the plain client | 360840 | 373889 |\n\
            | core consume: traced, to spans by hand | 264239 | 80000 |";
        let table = summary(tables);
        assert!(table.contains("| in memory: publish and handle | 0.1 | 1.3 | 0.5 | 2.2 |"), "{table}");
        assert!(table.contains("| core NATS: handle | 2.7 | 12 | 2.8 | 3.8 |"), "{table}");
        assert!(!table.contains("Kafka"), "{table}");
    }

    #[test]
    fn every_line_comes_from_rows_of_the_measurements() {
        let table = summary(MEASUREMENTS);
        assert!(LINES.iter().all(|line| table.contains(line.title)), "{table}");
    }

    #[test]
    fn the_table_of_the_guide_is_that_of_the_measurements() {
        let page = include_str!("../../docs/src/cost.md");
        let written = replace_block(page, "summary", &summary(MEASUREMENTS)).unwrap();
        assert_eq!(page, written);
    }
}
