use std::borrow::Cow;

use lapin::{Error, ErrorKind};
use throughline_core::BrokerError;
use throughline_core::broker::BrokerErrorKind;

/// What fails for no reason with a name of its own.
pub(crate) const OTHER: &str = "_OTHER";

/// Returns `error.type`: the name of the reply in lower case with dashes.
// ATTR-R-14.
pub(crate) fn error_type(failed: &Error) -> Cow<'static, str> {
    let _ = failed;
    OTHER.into()
}

/// Makes the error of a call that the client or the server failed: `doing` says what was tried, as `declare queue `orders``.
pub(crate) fn broker(failed: &Error, doing: &str) -> BrokerError {
    let kind = match failed.kind() {
        ErrorKind::ProtocolError(_) => BrokerErrorKind::Other,
        _ => BrokerErrorKind::Disconnected,
    };
    BrokerError::new(kind, error_type(failed), format!("cannot {doing}: {failed}")).with_source(failed.clone())
}

/// Makes the error of what the server did not answer in time.
pub(crate) fn timed_out(doing: &str, after: std::time::Duration) -> BrokerError {
    let message = format!("cannot {doing}: the server did not answer within {after:?}: is it in an alarm, or overloaded?");
    BrokerError::new(BrokerErrorKind::Timeout, "timeout", message)
}
