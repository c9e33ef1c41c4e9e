//! Measures and prints.
use throughline_benches::case::cases;
use throughline_benches::rounds::{Rounds, time};
fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    for case in cases().iter().filter(|case| case.to_string().contains(&filter)) {
        let times = time(case, Rounds { rounds: 21, messages: 1000 });
        println!("{:<60} {:>8.0} {:>8.0} {:>7.2} {:>6.2}-{:<6.2} {:?}", case.to_string(), times.ours.median, times.baseline.median, times.ratio.median, times.ratio.low, times.ratio.high, case.target);
    }
}
