use std::sync::{Arc, Mutex, PoisonError};

use async_nats::{ConnectOptions, Event, ServerError};
use throughline_core::BrokerError;
use throughline_core::broker::Seldom;
use tokio::sync::Notify;
use tracing::warn;

use crate::error;

/// How the server begins to say that a subscription is not allowed.
const DENIED: &str = "permissions violation for subscription to \"";

/// The most denials that are remembered; a service that asks for more has been told often enough.
const KEPT: usize = 1024;

/// What the server has refused to let this connection subscribe to. The client tells nobody but the callback for
/// events: to a subscription it looks as if no message came.
#[derive(Debug, Default)]
pub(crate) struct Denied {
    subjects: Mutex<Vec<String>>,
    changed: Notify,
    drops: Mutex<Seldom>,
}

impl Denied {
    /// Makes the client report what is refused.
    pub(crate) fn watch(self: &Arc<Self>, options: ConnectOptions) -> ConnectOptions {
        let denied = Arc::clone(self);
        options.event_callback(move |event| {
            denied.note(&event);
            std::future::ready(())
        })
    }

    fn note(&self, event: &Event) {
        let text = match event {
            Event::ServerError(ServerError::Other(text)) => text,
            Event::SlowConsumer(_) => return self.note_drop(),
            _ => return,
        };
        let Some(subject) = denied_subject(text) else {
            // A publish that is not allowed, for one: it had succeeded as far as the client knew.
            return warn!(error = text, "the NATS server reports an error");
        };
        let mut subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        if subjects.len() < KEPT && !subjects.iter().any(|known| known == subject) {
            subjects.push(subject.to_owned());
        }
        drop(subjects);
        self.changed.notify_waiters();
    }

    /// Tells that the client itself had no room for a message; it does not say of which subscription, nor of each.
    fn note_drop(&self) {
        if let Some(events) = self.drops.lock().unwrap_or_else(PoisonError::into_inner).note(1) {
            warn!(
                events,
                "the NATS client dropped messages since its own buffer for a subscription was full: what reads from it is too slow, \
                 and core NATS delivers none again"
            );
        }
    }

    /// Says that a subject was refused, if it was.
    pub(crate) fn check(&self, subject: &str) -> Result<(), BrokerError> {
        let subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        if subjects.iter().any(|denied| denied == subject) { Err(error::denied(subject)) } else { Ok(()) }
    }

    /// Says that the inboxes of this connection were refused, without which no answer of the server arrives.
    pub(crate) fn check_inbox(&self, prefix: &str) -> Result<(), BrokerError> {
        let subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        let is_inbox = |denied: &String| denied.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'));
        if subjects.iter().any(is_inbox) { Err(error::denied(&format!("{prefix}.>"))) } else { Ok(()) }
    }

    /// Waits until a subject is refused.
    pub(crate) async fn wait(&self, subject: &str) -> BrokerError {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before the look, so that nothing is missed between the two.
            changed.as_mut().enable();
            if let Err(denied) = self.check(subject) {
                return denied;
            }
            changed.await;
        }
    }

    /// Forgets a subject, before it is subscribed to again: the permissions may have been changed.
    pub(crate) fn forget(&self, subject: &str) {
        let mut subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        subjects.retain(|denied| denied != subject);
    }
}

/// Reads the subject in `Permissions Violation for Subscription to "orders.>" using queue "stock"`.
fn denied_subject(text: &str) -> Option<&str> {
    let start = text.get(..DENIED.len())?;
    if !start.eq_ignore_ascii_case(DENIED) {
        return None;
    }
    text.get(DENIED.len()..)?.split('"').next()
}

#[cfg(test)]
mod tests {
    use throughline_core::broker::BrokerErrorKind;

    use super::*;

    fn refused(text: &str) -> Event {
        Event::ServerError(ServerError::Other(text.to_owned()))
    }

    #[test]
    fn the_subject_is_read_from_what_the_server_says() {
        for text in [
            "Permissions Violation for Subscription to \"orders.>\"",
            "permissions violation for subscription to \"orders.>\" using queue \"stock\"",
        ] {
            assert_eq!(denied_subject(text), Some("orders.>"));
        }
        for text in ["Permissions Violation for Publish to \"orders\"", "Stale Connection", "", "größe"] {
            assert_eq!(denied_subject(text), None);
        }
    }

    #[tokio::test]
    async fn a_refused_subscription_is_an_error_that_says_what_to_change() {
        let denied = Denied::default();
        assert!(denied.check("orders").is_ok());
        let (error, ()) = tokio::join!(denied.wait("orders"), async {
            denied.note(&refused("Permissions Violation for Subscription to \"bills\""));
            denied.note(&refused("Permissions Violation for Subscription to \"orders\""));
        });
        assert_eq!(error.kind(), BrokerErrorKind::Unauthorized);
        assert!(error.to_string().contains("`orders`"));
        assert!(denied.check_inbox("_INBOX").is_ok());
        denied.note(&refused("Permissions Violation for Subscription to \"_INBOX.a.*\""));
        assert!(denied.check_inbox("_INBOX").unwrap_err().to_string().contains("`_INBOX.>`"));
        denied.forget("orders");
        assert!(denied.check("orders").is_ok() && denied.check("bills").is_err());
    }
}
