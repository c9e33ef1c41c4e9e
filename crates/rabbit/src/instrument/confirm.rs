use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use lapin::{Confirmation, PublisherConfirm as ClientConfirm};
use throughline_core::telemetry::Sending;

use super::publish::Place;

/// The confirmation of a published message that is to come, as the client's own type of this name: await it.
///
/// Its span ends with the confirmation. Where it is dropped instead, the span ends there without an error: the client has sent the
/// message, and nobody asked what became of it. `Channel::wait_for_confirms` waits for such a one, as for the client's own.
///
/// # Examples
///
/// ```no_run
/// use lapin::options::BasicPublishOptions;
/// use lapin::{BasicProperties, Channel};
/// # async fn example(otel: throughline_rabbit::Instrumentation, channel: Channel) -> lapin::Result<()> {
///
/// let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
/// let first = otel.basic_publish(&channel, "".into(), "orders".into(), options, b"1", properties.clone()).await?;
/// let second = otel.basic_publish(&channel, "".into(), "orders".into(), options, b"2", properties).await?;
/// let are_stored = first.await?.is_ack() && second.await?.is_ack();
/// # let _ = are_stored;
/// # Ok(())
/// # }
/// ```
#[must_use = "dropped at once, the span ends before the confirmation"]
pub struct PublisherConfirm {
    confirm: ClientConfirm,
    under_way: Option<(Sending, Place)>,
}

impl PublisherConfirm {
    /// Makes one whose span, if it has not ended yet, is to end with it.
    pub(super) const fn new(confirm: ClientConfirm, under_way: Option<(Sending, Place)>) -> Self {
        Self { confirm, under_way }
    }
}

impl Future for PublisherConfirm {
    type Output = lapin::Result<Confirmation>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let confirmed = ready!(Pin::new(&mut self.confirm).poll(context));
        if let Some((sending, place)) = self.under_way.take() {
            let failed = match &confirmed {
                Ok(confirmation) => place.refused(confirmation),
                Err(failed) => Some(place.failed(failed)),
            };
            sending.finish(Vec::new(), failed.as_ref());
        }
        Poll::Ready(confirmed)
    }
}

impl Drop for PublisherConfirm {
    fn drop(&mut self) {
        if let Some((sending, _)) = self.under_way.take() {
            sending.finish(Vec::new(), None);
        }
    }
}

impl fmt::Debug for PublisherConfirm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublisherConfirm").field("is_done", &self.under_way.is_none()).finish_non_exhaustive()
    }
}
