use std::time::Duration;

use async_nats::jetstream::context::GetStreamByNameErrorKind;
use throughline_core::BrokerError;
use throughline_core::broker::{Existence, Outbound};
use tokio::time::timeout;

use crate::error;
use crate::sender::Sender;

/// How long the server may take to say which stream takes a subject. One that does not let this user ask says nothing.
const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// Tells whether messages can be published to a destination: to core NATS always, else where a stream takes the subject.
pub(crate) async fn check_destination(sender: &Sender, outbound: &Outbound<'_>) -> Result<Existence, BrokerError> {
    if !sender.goes_to_stream(outbound) {
        return Ok(Existence::Usable);
    }
    let subject = outbound.destination.name();
    let context = sender.connection.link().jetstream.clone();
    match timeout(ANSWER_WAIT, context.stream_by_subject(subject)).await {
        Ok(Ok(_)) => Ok(Existence::Usable),
        Ok(Err(failed)) if failed.kind() == GetStreamByNameErrorKind::NotFound => Err(error::no_stream_takes(subject)),
        Ok(Err(failed)) => Ok(Existence::Unknown(error::stream_by_subject(failed, subject))),
        Err(_) => Ok(Existence::Unknown(error::no_answer_about(subject))),
    }
}
