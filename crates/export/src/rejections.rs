//! What a backend refused of an export that it took.

use std::sync::{Arc, Mutex, PoisonError};

#[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
use crate::one_line::one_line;

/// What a backend refused of an export that it took, from the client that reads the answer to who counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rejections(Arc<Mutex<Option<Rejected>>>);

/// How much it refused, and what it says of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Rejected {
    /// Spans, log records or data points; none where the backend only has something to say.
    pub(crate) count: u64,
    pub(crate) why: String,
}

impl Rejections {
    /// Notes what the answer to the last export says.
    #[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
    pub(crate) fn note(&self, rejected: Option<Rejected>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = rejected;
    }

    /// Takes what was noted since it was last asked.
    pub(crate) fn take(&self) -> Option<Rejected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
impl Rejected {
    /// Nothing where the backend refused nothing and says nothing. Its text is shortened to one line.
    pub(crate) fn new(count: i64, why: &str) -> Option<Self> {
        let count = u64::try_from(count).unwrap_or(0);
        let why = one_line(why);
        (count > 0 || !why.is_empty()).then_some(Self { count, why })
    }
}
