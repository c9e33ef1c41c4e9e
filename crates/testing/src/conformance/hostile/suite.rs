use opentelemetry_sdk::trace::Sampler;

use super::log::Listener;
use super::run::Run;
use super::set::HeaderSet;
use super::stranger::Strangers;
use super::tally::Tally;
use super::trial::Trial;
use crate::Capture;
use crate::conformance::bench::Bench;

/// How many sets are under way at a time.
const CHUNK: usize = 200;

/// Tries all sets on one service: a handler publishes onwards what it was given, and everything that goes out is looked at.
///
/// Nothing may panic, hang, get lost or be handled twice; what goes out is well-formed, within the limits, and holds no entry
/// that did not come in; and nothing of it is logged or becomes an attribute.
pub async fn run<H: Strangers>(sets: &[HeaderSet], trial: Trial) -> Tally {
    let mut bench = Bench::<H>::start().await;
    // Whatever a stranger decides about sampling, every span is to be seen.
    bench.capture = Capture::with_sampler(Sampler::AlwaysOn);
    let stranger = bench.harness.stranger().await;
    let listener = Listener::begin(stranger.client_log_targets());
    let mut run = Run::start(&bench, trial).await;
    let mut tally = Tally::default();
    for (number, chunk) in sets.chunks(CHUNK).enumerate() {
        run.chunk(&bench, stranger.as_ref(), number * CHUNK, chunk, &mut tally).await;
        let logged = listener.take();
        tally.logged(&logged);
        run.nothing_leaked(&bench, &logged);
        bench.capture.reset();
    }
    run.stop(&bench, &tally).await;
    drop(listener);
    drop(stranger);
    bench.stop().await;
    tally
}
