use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::{Middleware, Next};
use crate::message::{Delivery, Failure, Outcome};

/// A middleware that lets at most so many deliveries be handled at the same time, over all subscriptions that share this value.
///
/// The concurrency of one subscription is set where it is subscribed; this is for a resource that several share.
///
/// # Examples
///
/// ```
/// use throughline_core::middleware::ConcurrencyLimit;
/// let database = ConcurrencyLimit::new(8);
/// let same_database = database.clone();
/// # let _ = same_database;
/// ```
#[derive(Clone, Debug)]
pub struct ConcurrencyLimit {
    permits: Arc<Semaphore>,
}

impl ConcurrencyLimit {
    /// Creates a limit; zero counts as one.
    ///
    /// # Examples
    ///
    /// ```
    /// let limit = throughline_core::middleware::ConcurrencyLimit::new(8);
    /// # let _ = limit;
    /// ```
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS))) }
    }
}

#[async_trait]
impl Middleware for ConcurrencyLimit {
    async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
        match self.permits.acquire().await {
            Ok(_permit) => next.run(delivery).await,
            // The semaphore is private and never closed.
            Err(closed) => Outcome::failed(Failure::from_error(closed)),
        }
    }
}
