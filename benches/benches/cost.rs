//! The cases under criterion: `cargo bench -p throughline-benches`. Each side is measured by itself, the whole message with its dispatch;
//! what telemetry adds, and the ratios, are in the table of `cargo xtask bench`.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use throughline_benches::case::{Setup, cases};

/// As many as the queue of the batch processor holds the spans of.
const MESSAGES: u64 = 960;

fn cost(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for setup in setups() {
        let name = match setup {
            Setup::Hand(load, door, effort) => BenchmarkId::new(format!("by hand ({door}, {effort:?})"), load),
            Setup::Ours(load, door) => BenchmarkId::new(format!("ours ({door})"), load),
        };
        let mut side = setup.start();
        let unit = setup.load().unit() as u64;
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let (mut taken, mut done) = (Duration::ZERO, 0);
                while done < iterations {
                    let messages = (iterations - done).min(MESSAGES).div_ceil(unit) * unit;
                    let begun = Instant::now();
                    side.run(usize::try_from(messages).unwrap_or(usize::MAX));
                    taken += begun.elapsed();
                    side.flush();
                    done += messages;
                }
                taken.mul_f64(iterations as f64 / done as f64)
            });
        });
    }
    group.finish();
}

fn setups() -> Vec<Setup> {
    let mut setups: Vec<Setup> = Vec::new();
    for case in cases() {
        let (ours, baseline) = case.setups();
        for setup in [ours, baseline] {
            if !setups.contains(&setup) {
                setups.push(setup);
            }
        }
    }
    setups
}

criterion_group!(benches, cost);
criterion_main!(benches);
