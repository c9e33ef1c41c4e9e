//! The table for a terminal, as JSON and as Markdown.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::stats::{Compared, Spread, rounded};

/// What a number is, and which way is better.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Nanoseconds per message: a ratio is to stay under its target.
    Nanoseconds,
    /// Messages per second: a ratio is to stay over its target.
    PerSecond,
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub case: String,
    /// Ours, and what it is compared with.
    pub measured: Compared,
    /// The ratio that was asked for.
    pub target: Option<f64>,
    /// Microseconds of processor time per message, where programs on a server are measured.
    pub processor: Option<Compared>,
    /// Allocations of a message.
    pub allocations: Option<f64>,
    /// The allocations that were asked for.
    pub allocation_target: Option<f64>,
}

/// What of a count is a share in something that grows, and no allocation of the message itself.
const SHARE: f64 = 0.05;

impl Row {
    /// Returns whether time and allocations are as asked for.
    #[must_use]
    pub fn is_met(&self, unit: Unit) -> bool {
        let time = self.target.is_none_or(|target| match unit {
            Unit::Nanoseconds => self.measured.ratio.median <= target,
            Unit::PerSecond => self.measured.ratio.median >= target,
        });
        let allocations = self.allocations.zip(self.allocation_target);
        time && allocations.is_none_or(|(count, target)| count <= target + SHARE)
    }

    fn verdict(&self, unit: Unit) -> &'static str {
        match (self.target.or(self.allocation_target), self.is_met(unit)) {
            (None, _) => "-",
            (_, true) => "met",
            (_, false) => "missed",
        }
    }

    fn cells(&self, unit: Unit) -> Vec<String> {
        let sign = if unit == Unit::Nanoseconds { "<=" } else { ">=" };
        let number = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), |number| format!("{number:.2}"));
        let Compared { ours, baseline, ratio } = self.measured;
        let mut cells = vec![
            self.case.clone(),
            format!("{:.0}", ours.median),
            format!("{:.0}", baseline.median),
            format!("{:.2}", ratio.median),
            format!("{:.2} to {:.2}", ratio.low, ratio.high),
            self.target.map_or_else(|| "-".to_owned(), |target| format!("{sign} {target:.2}")),
            self.verdict(unit).to_owned(),
        ];
        cells.extend(match unit {
            Unit::Nanoseconds => vec![number(self.allocations), number(self.allocation_target)],
            Unit::PerSecond => {
                let median = |of: fn(Compared) -> Spread| number(self.processor.map(|processor| of(processor).median));
                vec![median(|one| one.ours), median(|one| one.baseline), median(|one| one.ratio)]
            }
        });
        cells
    }

    fn json(&self) -> Value {
        let mut row = self.measured.json();
        row["case"] = json!(self.case);
        row["target"] = json!(self.target.map(rounded));
        row["processor"] = json!(self.processor.map(Compared::json));
        row["allocations"] = json!(self.allocations);
        row["allocation_target"] = json!(self.allocation_target);
        row
    }
}

/// The rows of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the numbers are.
    pub unit: Unit,
    /// In the order of the table.
    pub rows: Vec<Row>,
}

impl Report {
    /// Writes the table for a terminal, and which targets are missed.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = vec![self.heads()];
        lines.extend(self.rows.iter().map(|row| row.cells(self.unit)));
        let widths: Vec<usize> = (0..lines[0].len())
            .map(|cell| lines.iter().map(|line| line[cell].chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for line in &lines {
            for (cell, width) in line.iter().zip(&widths).take(1) {
                let _ = write!(text, "{cell:<width$}");
            }
            for (cell, width) in line.iter().zip(&widths).skip(1) {
                let _ = write!(text, "  {cell:>width$}");
            }
            text.push('\n');
        }
        text.push_str(&self.missed());
        text
    }

    /// Writes the table as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let heads = self.heads();
        let mut text = format!("| {} |\n| --- |{}\n", heads.join(" | "), " ---: |".repeat(heads.len() - 1));
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.cells(self.unit).join(" | "));
        }
        text
    }

    /// Writes the rows as a list of objects. A spread is smallest, lower quartile, median, upper quartile, largest.
    #[must_use]
    pub fn json(&self) -> Value {
        self.rows.iter().map(Row::json).collect()
    }

    fn heads(&self) -> Vec<String> {
        let (unit, last): (_, &[_]) = match self.unit {
            Unit::Nanoseconds => ("ns", &["allocations", "target"]),
            Unit::PerSecond => ("/s", &["ours cpu us", "baseline cpu us", "ratio cpu"]),
        };
        let (ours, baseline) = (format!("ours {unit}"), format!("baseline {unit}"));
        let first = ["case", &ours, &baseline, "ratio", "half of the rounds", "target", ""];
        first.iter().chain(last).map(|head| (*head).to_owned()).collect()
    }

    fn missed(&self) -> String {
        let missed: Vec<&Row> = self.rows.iter().filter(|row| !row.is_met(self.unit)).collect();
        let asked = self.rows.iter().filter(|row| row.target.or(row.allocation_target).is_some()).count();
        if missed.is_empty() {
            return format!("\nAll {asked} targets are met.\n");
        }
        let mut text = format!("\n{} of {asked} targets are missed:\n", missed.len());
        for row in missed {
            let _ = write!(text, "  {}: ratio {:.2}", row.case, row.measured.ratio.median);
            if let Some(target) = row.target {
                let _ = write!(text, ", asked for {target:.2}");
            }
            if let Some((count, most)) =
                row.allocations.zip(row.allocation_target).filter(|(count, most)| *count > most + SHARE)
            {
                let _ = write!(text, "; {count:.2} allocations, asked for {most:.2}");
            }
            text.push('\n');
        }
        text
    }
}

/// Puts new text between the marks `<!-- NAME -->` and `<!-- end of NAME -->` of a document.
///
/// # Errors
///
/// When the document has no such marks.
pub fn replace_block(document: &str, name: &str, text: &str) -> Result<String, String> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let missing = || format!("the document has no block `{name}`");
    let (before, rest) = document.split_once(&begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once(&end).ok_or_else(missing)?;
    Ok(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ratio: f64) -> Row {
        Row {
            case: "single".to_owned(),
            measured: Compared::of(&[ratio], &[1.0]),
            target: Some(1.0),
            processor: None,
            allocations: Some(3.0),
            allocation_target: Some(3.0),
        }
    }

    #[test]
    fn times_stay_under_their_target_and_throughput_over() {
        assert!(row(0.9).is_met(Unit::Nanoseconds) && !row(1.1).is_met(Unit::Nanoseconds));
        assert!(row(1.1).is_met(Unit::PerSecond) && !row(0.9).is_met(Unit::PerSecond));
        assert!(!Row { allocations: Some(4.0), ..row(0.9) }.is_met(Unit::Nanoseconds));
    }

    #[test]
    fn a_missed_target_is_named() {
        let report = Report { unit: Unit::Nanoseconds, rows: vec![row(1.25), row(0.5)] };
        assert!(report.text().contains("1 of 2 targets are missed:\n  single: ratio 1.25, asked for 1.00\n"));
    }

    #[test]
    fn an_object_has_the_fields_that_are_documented() {
        let json = row(1.0).json();
        let mut names: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        let expected =
            ["allocation_target", "allocations", "baseline", "case", "ours", "processor", "ratio", "spread", "target"];
        assert_eq!(names, expected);
    }

    #[test]
    fn processor_time_stands_beside_the_rate() {
        let processor = Some(Compared::of(&[2.3], &[0.7]));
        let report = Report { unit: Unit::PerSecond, rows: vec![Row { processor, ..row(1.1) }] };
        let expected = "\
            | case | ours /s | baseline /s | ratio | half of the rounds | target |  | ours cpu us | baseline cpu us | ratio cpu |\n\
            | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n\
            | single | 1 | 1 | 1.10 | 1.10 to 1.10 | >= 1.00 | met | 2.30 | 0.70 | 3.29 |\n";
        assert_eq!(report.markdown(), expected);
        assert_eq!(report.json()[0]["processor"]["ratio"], 3.286);
    }

    #[test]
    fn a_block_is_replaced_and_nothing_else() {
        let document = "before\n<!-- memory -->\nold\n<!-- end of memory -->\nafter";
        let expected = "before\n<!-- memory -->\n\nnew\n\n<!-- end of memory -->\nafter";
        assert_eq!(replace_block(document, "memory", "new\n").unwrap(), expected);
        assert!(replace_block(document, "nats", "new").is_err());
    }
}
