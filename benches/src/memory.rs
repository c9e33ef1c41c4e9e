//! The table of the in-process cases.

use serde_json::Value;

use crate::case::{Allocations, Case, Target, cases};
use crate::report::{Report, Row, Unit};
use crate::rounds::{Rounds, time};
use crate::stats::Compared;

/// Measures all cases; `counts` is what the program `count` wrote.
#[must_use]
pub fn measure(rounds: Rounds, counts: &Value) -> Report {
    let rows = cases().iter().map(|case| row(case, time(case, rounds), &counts[case.to_string()])).collect();
    Report { unit: Unit::Nanoseconds, rows }
}

fn row(case: &Case, times: Compared, counts: &Value) -> Row {
    let target = match case.target {
        Target::None => None,
        Target::Nanoseconds(more) => Some((times.baseline.median + more) / times.baseline.median),
        Target::Ratio(ratio) => Some(ratio),
    };
    let allocation_target = match case.allocations {
        Allocations::Baseline => counts[1].as_f64(),
        Allocations::Most(most) => Some(most),
    };
    Row {
        case: case.to_string(),
        measured: times,
        target,
        processor: None,
        allocations: counts[0].as_f64(),
        allocation_target,
    }
}
