use std::sync::Arc;

use bytes::Bytes;

use super::Destination;

/// What few messages have, on both ways. Envelope and delivery hold it behind one pointer, which moves from one to the other.
#[derive(Clone, Default)]
pub(super) struct Properties {
    pub(super) key: Option<Bytes>,
    pub(super) id: Option<Arc<str>>,
    pub(super) correlation_id: Option<Arc<str>>,
    pub(super) reply_to: Option<Destination>,
    /// Whether there is no body, which is not the same as an empty one.
    pub(super) has_no_payload: bool,
}
