use std::sync::{Mutex, PoisonError};
use throughline_core::broker::Seldom;

use async_nats::{Message, StatusCode};
use tracing::warn;

/// Tells whether this is a word of the server about a subscription or a request, and no message. A message of somebody else may
/// have a status too, since it stands among the headers: then it has a body, or comes from a stream.
pub(crate) fn is_status(message: &Message) -> bool {
    message.status.is_some() && message.payload.is_empty() && !crate::delivery::is_from_stream(message)
}

/// Returns a status as the server writes it.
pub(crate) fn text_of(message: &Message) -> String {
    let code = message.status.as_ref().map_or(0, StatusCode::as_u16);
    match message.description.as_deref().unwrap_or_default() {
        "" => code.to_string(),
        description => {
            format!("{code} {}", description.chars().take(80).flat_map(char::escape_debug).collect::<String>())
        }
    }
}

/// Tells of statuses that arrive where messages should: of the first at once, of the next ones together.
#[derive(Debug, Default)]
pub(crate) struct Statuses(Mutex<Seldom>);

impl Statuses {
    pub(crate) fn note(&self, status: &Message) {
        let Some(count) = self.0.lock().unwrap_or_else(PoisonError::into_inner).note(1) else { return };
        warn!(
            destination = %crate::protocol::shown(&status.subject),
            status = text_of(status),
            count,
            "a status of the NATS server arrived in place of a message: no handler gets it. A request whose reply is expected \
             here has no answer"
        );
    }
}
