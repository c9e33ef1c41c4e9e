use lapin::BasicProperties;
use throughline_core::{Envelope, PublishError};

/// Writes what an envelope says into the properties of a message: ids, content type, reply address, headers, and what its native part sets.
pub(crate) fn to_native(envelope: &Envelope) -> Result<BasicProperties, PublishError> {
    let _ = envelope;
    unimplemented!()
}
