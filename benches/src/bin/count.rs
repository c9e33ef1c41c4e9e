//! Counts and prints.
use throughline_benches::case::cases;
use throughline_benches::rounds::{allocations, case_allocations};
fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    for case in cases().iter().filter(|case| case.to_string().contains(&filter)) {
        let (ours, baseline) = case_allocations(case, |setup| allocations(setup, |run| allocation_counter::measure(run).count_total));
        println!("{:<60} {ours:>8.2} {baseline:>8.2}", case.to_string());
    }
}
