//! Tries a failed export again.

use std::time::Duration;

use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use tokio::time::{Instant, sleep, timeout_at};

/// How often a failed export is tried again, and the first pause; each next one is twice as long.
const RETRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Why an export failed.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: OTelSdkError,
    pub(crate) again: Again,
}

/// Whether a failure may pass.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Again {
    Never,
    /// After a pause that is at least so long.
    After(Duration),
}

#[cfg(feature = "zipkin")]
impl Again {
    pub(crate) const SOON: Self = Self::After(Duration::ZERO);
}

/// Sends until it is taken, refused for good, or has failed too often, and no longer than `timeout`.
pub(crate) async fn within<F>(timeout: Duration, send: impl Fn() -> F) -> OTelSdkResult
where
    F: Future<Output = Result<(), Refusal>>,
{
    match timeout_at(Instant::now() + timeout, repeatedly(send)).await {
        Ok(sent) => sent,
        Err(_) => Err(OTelSdkError::Timeout(timeout)),
    }
}

async fn repeatedly<F>(send: impl Fn() -> F) -> OTelSdkResult
where
    F: Future<Output = Result<(), Refusal>>,
{
    let (mut pause, mut retries) = (FIRST_PAUSE, RETRIES);
    loop {
        match send().await {
            Ok(()) => return Ok(()),
            Err(Refusal { again: Again::After(wish), .. }) if retries > 0 => sleep(pause.max(wish)).await,
            Err(Refusal { error, .. }) => return Err(error),
        }
        pause *= 2;
        retries -= 1;
    }
}
