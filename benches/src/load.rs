//! What is measured: the way of a message, what it carries, and what telemetry is there.

use std::fmt;

use bytes::Bytes;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::{Context, KeyValue};

/// How many messages are in a batch.
pub const BATCH: usize = 100;
/// How many handlers a message of a chain passes.
pub const HOPS: usize = 3;
/// Where messages are published to.
pub const DESTINATION: &str = "orders.placed";
/// The destinations of a chain.
pub const CHAIN: [&str; HOPS] = ["hop.one", "hop.two", "hop.three"];

/// The body of every message.
const BODY: &[u8; 256] = &[b'x'; 256];

const SAMPLED: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const NOT_SAMPLED: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// Which of the two ways into the engine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Door {
    /// `App`, `serve` and `Publisher` on the in-memory broker.
    Framework,
    /// `Producer` and `Consumer` around a channel.
    Raw,
}

/// The way of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// Published, handled.
    Single,
    /// A hundred published at once and handled at once.
    Batch,
    /// Published, handled and replied to twice, handled.
    Chain,
}

/// What telemetry is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Removed.
    Untraced,
    /// In place, and no SDK installed.
    NoSdk,
    /// A sampler that says no.
    Unsampled,
    /// The batch processor.
    Sampled,
    /// The batch processor, and a meter provider.
    SampledMetrics,
    /// A meter provider, and no tracer provider.
    Metrics,
}

impl State {
    pub(crate) const fn has_metrics(self) -> bool {
        matches!(self, Self::SampledMetrics | Self::Metrics)
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Load {
    /// The way of a message.
    pub shape: Shape,
    /// What telemetry is there.
    pub state: State,
    /// Whether messages come from outside with a `traceparent`, so that only their handling has a span.
    pub incoming: bool,
    /// How many entries of baggage are current where a message is published.
    pub baggage: usize,
}

impl Load {
    /// One message at a time, published here, without baggage.
    #[must_use]
    pub const fn single(state: State) -> Self {
        Self { shape: Shape::Single, state, incoming: false, baggage: 0 }
    }

    /// Sets the way of a message.
    #[must_use]
    pub const fn shaped(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }

    /// Lets messages come from outside.
    #[must_use]
    pub const fn incoming(mut self) -> Self {
        self.incoming = true;
        self
    }

    /// Makes baggage current where messages are published.
    #[must_use]
    pub const fn baggage(mut self, entries: usize) -> Self {
        self.baggage = entries;
        self
    }

    /// Returns the same with another telemetry.
    #[must_use]
    pub const fn with_state(mut self, state: State) -> Self {
        self.state = state;
        self
    }

    /// How many messages of a round are published at a time, or are one chain: a round is a multiple of it.
    #[must_use]
    pub const fn unit(&self) -> usize {
        match self.shape {
            Shape::Single => 1,
            Shape::Batch => BATCH,
            Shape::Chain => HOPS,
        }
    }

    /// The header of a message from outside.
    pub(crate) fn traceparent(&self) -> Option<Bytes> {
        let value = if self.state == State::Unsampled { NOT_SAMPLED } else { SAMPLED };
        self.incoming.then(|| Bytes::from_static(value))
    }

    /// The context in which messages are published.
    pub(crate) fn context(&self) -> Context {
        let entries = (0..self.baggage).map(|entry| KeyValue::new(format!("entry.{entry}"), format!("value-{entry}")));
        let context = Context::new();
        if self.baggage == 0 { context } else { context.with_baggage(entries) }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = match self.shape {
            Shape::Single => "single",
            Shape::Batch => "batch of 100",
            Shape::Chain => "chain of 3",
        };
        let state = match self.state {
            State::Untraced => "untraced",
            State::NoSdk => "no SDK",
            State::Unsampled => "unsampled",
            State::Sampled => "sampled",
            State::SampledMetrics => "sampled and metrics",
            State::Metrics => "metrics alone",
        };
        write!(f, "{shape}, {state}")?;
        if self.incoming {
            f.write_str(", incoming headers")?;
        }
        match self.baggage {
            0 => Ok(()),
            1 => f.write_str(", baggage of 1"),
            entries => write!(f, ", baggage of {entries}"),
        }
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Framework => "framework",
            Self::Raw => "raw",
        })
    }
}

/// Returns the body of a message; it is shared, not copied.
#[must_use]
pub fn body() -> Bytes {
    Bytes::from_static(BODY)
}
