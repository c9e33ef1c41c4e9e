use std::time::Duration;

use async_trait::async_trait;

use super::{Middleware, Next};
use crate::message::{Delivery, Failure, Outcome};

/// A middleware that gives up on handling a message after a time: the handler is dropped at its next await and the message follows the
/// failure
/// rule, with `error.type` = `timeout`.
///
/// # Examples
///
/// ```
/// use throughline_core::middleware::Timeout;
/// let ten_seconds = Timeout::secs(10);
/// # let _ = ten_seconds;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Timeout {
    limit: Duration,
}

impl Timeout {
    /// Creates a limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// let limit = throughline_core::middleware::Timeout::new(Duration::from_millis(500));
    /// # let _ = limit;
    /// ```
    #[must_use]
    pub const fn new(limit: Duration) -> Self {
        Self { limit }
    }

    /// Creates a limit of that many seconds.
    ///
    /// # Examples
    ///
    /// ```
    /// let limit = throughline_core::middleware::Timeout::secs(10);
    /// # let _ = limit;
    /// ```
    #[must_use]
    pub const fn secs(seconds: u64) -> Self {
        Self::new(Duration::from_secs(seconds))
    }
}

#[async_trait]
impl Middleware for Timeout {
    async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
        match tokio::time::timeout(self.limit, next.run(delivery)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let text = format!("not handled within {:?}: raise the limit or make the handler faster", self.limit);
                Outcome::failed(Failure::new("timeout", text).by_framework())
            }
        }
    }
}
