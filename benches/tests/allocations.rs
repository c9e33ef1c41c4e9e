//! How many allocations a message makes, written down. A count that rises fails, and so does one that falls without being written down.
//!
//! Counted is the whole message, publish and handling, to a hundredth: what is allocated for many messages at a time is shared among them.
//! To accept new numbers, replace the table by the one the failing test prints.

use throughline_benches::case::{Setup, cases};
use throughline_benches::rounds::allocations;

/// Below it is the share of a message in something that grows, not a change.
const TOLERANCE: f64 = 0.05;

#[rustfmt::skip]
const WRITTEN_DOWN: &[(&str, f64)] = &[
    ("framework: single, untraced", 2.01),
    ("framework: batch of 100, untraced", 2.31),
    ("framework: chain of 3, untraced", 3.35),
    ("framework: single, no SDK", 2.01),
    ("framework: single, no SDK, incoming headers", 5.01),
    ("framework: chain of 3, no SDK", 3.35),
    ("framework: single, unsampled", 10.01),
    ("framework: single, unsampled, incoming headers", 7.01),
    ("framework: single, unsampled, baggage of 1", 20.03),
    ("framework: single, unsampled, baggage of 10", 42.16),
    ("framework: batch of 100, unsampled", 6.59),
    ("framework: chain of 3, unsampled", 11.35),
    ("framework: single, sampled", 12.01),
    ("framework: single, sampled, incoming headers", 8.01),
    ("framework: single, sampled, baggage of 1", 22.03),
    ("framework: single, sampled, baggage of 10", 44.16),
    ("framework: batch of 100, sampled", 6.61),
    ("framework: chain of 3, sampled", 13.35),
    ("framework: single, sampled and metrics", 12.01),
    ("framework: single, metrics alone", 2.01),
    ("raw: single, no SDK", 1.02),
    ("raw: single, no SDK, incoming headers", 4.02),
    ("raw: chain of 3, no SDK", 1.00),
    ("raw: single, unsampled", 9.02),
    ("raw: single, unsampled, incoming headers", 6.02),
    ("raw: single, unsampled, baggage of 1", 19.05),
    ("raw: single, unsampled, baggage of 10", 41.18),
    ("raw: batch of 100, unsampled", 5.29),
    ("raw: chain of 3, unsampled", 9.00),
    ("raw: single, sampled", 11.02),
    ("raw: single, sampled, incoming headers", 7.02),
    ("raw: single, sampled, baggage of 1", 21.05),
    ("raw: single, sampled, baggage of 10", 43.18),
    ("raw: batch of 100, sampled", 5.31),
    ("raw: chain of 3, sampled", 11.00),
    ("raw: single, sampled and metrics", 11.02),
    ("raw: single, metrics alone", 1.02),
];

#[test]
fn no_message_makes_more_allocations_than_are_written_down() {
    let counted = count();
    let mut wrong: Vec<String> = Vec::new();
    for (case, count) in &counted {
        let written = WRITTEN_DOWN.iter().find(|(name, _)| name == case).map(|(_, count)| *count);
        match written {
            None => wrong.push(format!("{case}: {count}, and nothing is written down")),
            Some(written) if *count > written + TOLERANCE => {
                wrong.push(format!("{case}: {count}, more than the {written} written down"));
            }
            Some(written) if *count < written - TOLERANCE => {
                wrong.push(format!("{case}: {count}, less than {written}: write the new, lower number down"));
            }
            Some(_) => {}
        }
    }
    let gone = WRITTEN_DOWN.iter().filter(|(name, _)| counted.iter().all(|(case, _)| case != name));
    wrong.extend(gone.map(|(name, _)| format!("{name}: is no case any more")));
    let table: Vec<String> = counted.iter().map(|(case, count)| format!("    ({case:?}, {count:.2}),")).collect();
    assert!(
        wrong.is_empty(),
        "{}\n\nconst WRITTEN_DOWN: &[(&str, f64)] = &[\n{}\n];",
        wrong.join("\n"),
        table.join("\n")
    );
}

/// Each of ours once, in the order of the table of cases.
fn count() -> Vec<(String, f64)> {
    let mut counted: Vec<(String, f64)> = Vec::new();
    for case in cases() {
        let Setup::Ours(load, door) = case.setups().0 else { continue };
        let name = format!("{door}: {load}");
        if counted.iter().all(|(known, _)| *known != name) {
            let count = allocations(case.setups().0, |run| allocation_counter::measure(run).count_total);
            counted.push((name, count));
        }
    }
    counted
}
