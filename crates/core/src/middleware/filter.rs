use async_trait::async_trait;

use super::{Middleware, Next};
use crate::message::{Delivery, Outcome};

/// A middleware that acknowledges messages that a predicate does not want, without calling the handler. Of a batch the unwanted ones are
/// taken out.
///
/// # Examples
///
/// ```
/// use throughline_core::middleware::Filter;
/// let acme_only = Filter::new(|delivery| delivery.headers().get("tenant") == Some("acme"));
/// # let _ = acme_only;
/// ```
#[derive(Clone, Debug)]
pub struct Filter<F> {
    wanted: F,
}

impl<F: Fn(&Delivery) -> bool + Send + Sync + 'static> Filter<F> {
    /// Creates a filter from a predicate on single messages.
    ///
    /// # Examples
    ///
    /// ```
    /// let filter = throughline_core::middleware::Filter::new(|delivery| !delivery.payload().is_empty());
    /// # let _ = filter;
    /// ```
    #[must_use]
    pub const fn new(wanted: F) -> Self {
        Self { wanted }
    }
}

#[async_trait]
impl<F: Fn(&Delivery) -> bool + Send + Sync + 'static> Middleware for Filter<F> {
    async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
        if !delivery.is_batch() {
            return if (self.wanted)(&delivery) { next.run(delivery).await } else { Outcome::ack() };
        }
        let wanted: Vec<bool> = delivery.messages().iter().map(&self.wanted).collect();
        if wanted.iter().all(|wanted| *wanted) {
            return next.run(delivery).await;
        }
        if !wanted.contains(&true) {
            return Outcome::ack();
        }
        let outcome = next.run(delivery.retain_messages(&wanted)).await;
        spread(outcome, &wanted)
    }
}

/// Puts the outcomes of the messages that were passed on back to their places; the others are acknowledged.
fn spread(outcome: Outcome, wanted: &[bool]) -> Outcome {
    let mut handled = 0;
    let each = wanted.iter().map(|wanted| {
        if !wanted {
            return Some(Outcome::ack());
        }
        handled += 1;
        outcome.each().get(handled - 1).cloned().flatten()
    });
    let each = each.collect();
    outcome.with_each(each)
}
