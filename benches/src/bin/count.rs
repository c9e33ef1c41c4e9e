//! Counts the allocations of all cases and writes them as JSON: `count FILE`.
//!
//! A program of its own: the counting allocator would slow down what is timed.

use std::env;
use std::error::Error;
use std::fs;

use serde_json::{Map, json};
use throughline_benches::case::cases;
use throughline_benches::rounds::{allocations, case_allocations};

fn main() -> Result<(), Box<dyn Error>> {
    let file = env::args().nth(1).ok_or("usage: count FILE")?;
    let mut counts = Map::new();
    for case in cases() {
        let (ours, baseline) =
            case_allocations(&case, |setup| allocations(setup, |run| allocation_counter::measure(run).count_total));
        counts.insert(case.to_string(), json!([ours, baseline]));
    }
    fs::write(file, serde_json::to_string_pretty(&counts)?)?;
    Ok(())
}
