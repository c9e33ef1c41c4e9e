//! Interleaved rounds: what each side takes for a message, and how many allocations it makes.

use std::time::Instant;

use crate::case::{Case, Kind, Setup};
use crate::side::Side;
use crate::stats::Compared;

/// How many rounds, and how many messages in each.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// Pairs of rounds that count.
    pub rounds: usize,
    /// Messages of a round, made a multiple of the batch or the chain.
    pub messages: usize,
}

/// Rounds before the first that counts: the allocator, the caches and the instruments know the work then.
const WARM_UP: usize = 5;

/// Measures a case, in nanoseconds per message: in every round each side once, in turns from the first to the last and back, so that a
/// machine that becomes slower
/// does so for all.
#[must_use]
pub fn time(case: &Case, rounds: Rounds) -> Compared {
    let (ours, baseline) = case.setups();
    let mut sides = vec![Timed::start(ours, rounds), Timed::start(baseline, rounds)];
    if let Some((ours, baseline)) = case.bases() {
        sides.extend([Timed::start(ours, rounds), Timed::start(baseline, rounds)]);
    }
    for round in 0..WARM_UP + rounds.rounds {
        let order: Vec<usize> = (0..sides.len()).collect();
        let order = if round % 2 == 0 { order } else { order.into_iter().rev().collect() };
        for side in order {
            sides[side].round(round >= WARM_UP);
        }
    }
    let net = |side: usize| -> Vec<f64> {
        let base = sides.get(side + 2).filter(|_| case.kind == Kind::Added).map(|base| &base.times);
        let base = |round: usize| base.map_or(0.0, |times| times[round]);
        sides[side].times.iter().enumerate().map(|(round, time)| time - base(round)).collect()
    };
    Compared::of(&net(0), &net(1))
}

struct Timed {
    side: Box<dyn Side>,
    messages: usize,
    times: Vec<f64>,
}

impl Timed {
    fn start(setup: Setup, rounds: Rounds) -> Self {
        let messages = whole(setup, rounds.messages);
        Self { side: setup.start(), messages, times: Vec::with_capacity(rounds.rounds) }
    }

    #[allow(clippy::cast_precision_loss)] // a round is far shorter than 2^52 nanoseconds
    fn round(&mut self, counts: bool) {
        let begun = Instant::now();
        self.side.run(self.messages);
        let taken = begun.elapsed();
        self.side.flush();
        if counts {
            self.times.push(taken.as_nanos() as f64 / self.messages as f64);
        }
    }
}

fn whole(setup: Setup, messages: usize) -> usize {
    let unit = setup.load().unit();
    (messages / unit).max(1) * unit
}

/// Counts the allocations that a side makes for a message, to a hundredth.
///
/// `count` runs what it is given and returns how many allocations that made. What grows once is grown in the rounds before; what is
/// allocated for many messages at a time (a block of the channel, a batch) counts as its share.
#[allow(clippy::cast_precision_loss)] // there are far fewer than 2^52
pub fn allocations(setup: Setup, count: impl Fn(&mut dyn FnMut()) -> u64) -> f64 {
    // Whole batches and whole chains.
    const MESSAGES: usize = 300;
    let messages = whole(setup, MESSAGES);
    let mut side = setup.start();
    for _ in 0..WARM_UP {
        side.run(messages);
        side.flush();
    }
    let mut counted = Vec::with_capacity(5);
    for _ in 0..5 {
        counted.push(count(&mut || side.run(messages)));
        side.flush();
    }
    counted.sort_unstable();
    (counted[2] as f64 / messages as f64 * 100.0).round() / 100.0
}

/// The allocations of ours and of the baseline, as the numbers of a case are to be understood.
pub fn case_allocations(case: &Case, mut of: impl FnMut(Setup) -> f64) -> (f64, f64) {
    let (ours, baseline) = case.setups();
    let (ours, baseline) = (of(ours), of(baseline));
    let (less_ours, less_baseline) = match (case.bases(), case.kind) {
        (Some((ours, baseline)), _) => (of(ours), of(baseline)),
        (None, Kind::NoSdk) => (baseline, baseline),
        (None, _) => (0.0, 0.0),
    };
    let net = |all: f64, less: f64| ((all - less) * 100.0).round() / 100.0;
    (net(ours, less_ours), net(baseline, less_baseline))
}
