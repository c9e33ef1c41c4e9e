//! The programs that take turns on a real server: the plain client, ours without telemetry, ours with spans, the plain client with spans
//! by hand.

use std::error::Error;
use std::fmt;

use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracerProvider};
use throughline_core::telemetry::Instrumentation;
use tokio::runtime::{Builder, Runtime};

use crate::pipeline::Dropping;
use crate::report::Row;
use crate::stats::{Compared, Spread};
use crate::stopwatch::Round;

/// One program on the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Program {
    /// The client alone.
    Raw,
    /// Ours with telemetry removed.
    Untraced,
    /// Ours with spans, sampled and batched.
    Traced,
    /// The client with spans by hand.
    ByHand,
    /// The client alone, promising less than ours: no target is held against it.
    Careless,
}

/// The programs that every case has.
pub(crate) const FOUR: &[Program] = &[Program::Raw, Program::Untraced, Program::Traced, Program::ByHand];

/// The first round fills caches and lets the server grow its buffers; it does not count.
const WARM_UP: usize = 1;

/// What is measured on a server.
pub(crate) trait Case: fmt::Display {
    /// Which programs take turns.
    fn programs(&self) -> &'static [Program] {
        FOUR
    }

    /// Makes on the server what the rounds need.
    async fn prepare(&self, url: &str) -> Result<(), Box<dyn Error>>;

    /// Runs one round and returns what it took.
    async fn round(&self, url: &str, program: Program) -> Result<Round, Box<dyn Error>>;
}

/// Measures a case in interleaved rounds.
pub(crate) async fn measure(case: &impl Case, url: &str, rounds: usize) -> Result<Vec<Row>, Box<dyn Error>> {
    case.prepare(url).await?;
    let mut taken = Taken::default();
    for round in 0..WARM_UP + rounds {
        for program in order(case.programs(), round) {
            let one = case.round(url, program).await?;
            if round >= WARM_UP {
                taken.0[program as usize].push(one);
            }
        }
    }
    Ok(taken.done(&case.to_string()))
}

/// There and back, so that a machine that becomes slower does so for all.
fn order(programs: &[Program], round: usize) -> Vec<Program> {
    let mut order = programs.to_vec();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// What was taken, program by program, in the order of the rounds.
#[derive(Default)]
struct Taken([Vec<Round>; 5]);

impl Taken {
    /// Says that a case is measured: a run takes minutes.
    fn done(&self, name: &str) -> Vec<Row> {
        let measured = self.0.iter().filter(|rounds| !rounds.is_empty());
        let medians = measured.map(|rounds| format!("{:.0}", Spread::of(rates(rounds)).median));
        eprintln!("{name}: {} messages per second", medians.collect::<Vec<_>>().join(", "));
        let mut rows = vec![
            self.row(format!("{name}: untraced, to the plain client"), Program::Untraced, Program::Raw, Some(0.97)),
            self.row(format!("{name}: traced, to spans by hand"), Program::Traced, Program::ByHand, Some(1.0)),
        ];
        if !self.0[Program::Careless as usize].is_empty() {
            let case = format!("{name}: untraced, to a client that stores no offsets");
            rows.push(self.row(case, Program::Untraced, Program::Careless, None));
        }
        rows
    }

    fn row(&self, case: String, ours: Program, baseline: Program, target: Option<f64>) -> Row {
        let (ours, baseline) = (&self.0[ours as usize], &self.0[baseline as usize]);
        Row {
            case,
            measured: Compared::of(&rates(ours), &rates(baseline)),
            target,
            processor: processor(ours).zip(processor(baseline)).map(|(ours, baseline)| Compared::of(&ours, &baseline)),
            allocations: None,
            allocation_target: None,
        }
    }
}

fn rates(rounds: &[Round]) -> Vec<f64> {
    rounds.iter().map(|round| round.per_second).collect()
}

fn processor(rounds: &[Round]) -> Option<Vec<f64>> {
    rounds.iter().map(|round| round.processor).collect()
}

/// Server and programs share two cores.
pub(crate) fn runtime() -> Result<Runtime, Box<dyn Error>> {
    Ok(Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Spans leave while messages are handled, as in a service: the processor has the settings of the SDK.
pub(crate) fn provider() -> SdkTracerProvider {
    SdkTracerProvider::builder().with_span_processor(BatchSpanProcessor::builder(Dropping).build()).build()
}

pub(crate) fn engine(provider: &SdkTracerProvider) -> Instrumentation {
    Instrumentation::builder().tracer_provider(provider.clone()).build()
}
