//! The table of a real NATS server: the plain client, ours without telemetry, ours with spans, the plain client with spans by hand.

mod consume;
mod hand;
mod publish;
mod tally;

use std::error::Error;

use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracerProvider};
use throughline_core::telemetry::Instrumentation;
use tokio::runtime::Builder;

use self::consume::Consume;
use self::publish::Publish;
use crate::pipeline::Dropping;
use crate::report::{Report, Row, Unit};
use crate::stats::Spread;

/// One program on the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Program {
    /// async-nats alone.
    Raw,
    /// Ours with telemetry removed.
    Untraced,
    /// Ours with spans, sampled and batched.
    Traced,
    /// async-nats with spans by hand.
    ByHand,
}

const PROGRAMS: [Program; 4] = [Program::Raw, Program::Untraced, Program::Traced, Program::ByHand];

/// The first round fills caches and lets the server grow its buffers; it does not count.
const WARM_UP: usize = 1;

/// Measures both parts of NATS, in interleaved rounds of messages per second.
///
/// # Errors
///
/// When the server does not answer.
pub fn measure(url: &str, rounds: usize) -> Result<Report, Box<dyn Error>> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut rows = Vec::new();
    runtime.block_on(async {
        for publish in Publish::ALL {
            publish.prepare(url).await?;
            let mut rates = Rates::default();
            for round in 0..WARM_UP + rounds {
                for program in order(round) {
                    rates.add(round, program, publish.rate(url, program).await?);
                }
            }
            rows.extend(rates.done(&publish.to_string()));
        }
        for consume in Consume::ALL {
            consume.prepare(url).await?;
            let mut rates = Rates::default();
            for round in 0..WARM_UP + rounds {
                for program in order(round) {
                    rates.add(round, program, consume.rate(url, program).await?);
                }
            }
            rows.extend(rates.done(&consume.to_string()));
        }
        Ok::<(), Box<dyn Error>>(())
    })?;
    Ok(Report { unit: Unit::PerSecond, rows })
}

/// There and back, so that a machine that becomes slower does so for all.
fn order(round: usize) -> Vec<Program> {
    let mut order = PROGRAMS.to_vec();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// Messages per second, program by program, in the order of the rounds.
#[derive(Default)]
struct Rates([Vec<f64>; 4]);

impl Rates {
    fn add(&mut self, round: usize, program: Program, rate: f64) {
        if round >= WARM_UP {
            self.0[program as usize].push(rate);
        }
    }

    /// Says that a case is measured: a run takes minutes.
    fn done(&self, name: &str) -> [Row; 2] {
        let medians = self.0.iter().map(|rates| format!("{:.0}", Spread::of(rates.iter().copied()).median));
        eprintln!("{name}: {} messages per second", medians.collect::<Vec<_>>().join(", "));
        [
            self.row(format!("{name}: untraced, to the plain client"), Program::Untraced, Program::Raw, 0.97),
            self.row(format!("{name}: traced, to spans by hand"), Program::Traced, Program::ByHand, 1.0),
        ]
    }

    fn row(&self, case: String, ours: Program, baseline: Program, target: f64) -> Row {
        let (ours, baseline) = (&self.0[ours as usize], &self.0[baseline as usize]);
        Row {
            case,
            ours: Spread::of(ours.iter().copied()),
            baseline: Spread::of(baseline.iter().copied()),
            ratio: Spread::of(ours.iter().zip(baseline).map(|(ours, baseline)| ours / baseline)),
            target: Some(target),
            allocations: None,
            allocation_target: None,
        }
    }
}

/// Spans leave while messages are handled, as in a service: the processor has the settings of the SDK.
fn provider() -> SdkTracerProvider {
    SdkTracerProvider::builder().with_span_processor(BatchSpanProcessor::builder(Dropping).build()).build()
}

fn engine(provider: &SdkTracerProvider) -> Instrumentation {
    Instrumentation::builder().tracer_provider(provider.clone()).build()
}
