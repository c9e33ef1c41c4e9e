//! What goes through the channel.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

/// The headers of a message: names are seldom made at run time, values are shared.
pub type Headers = Vec<(Cow<'static, str>, Bytes)>;

/// A message on its way.
pub(crate) struct Message<H> {
    pub(crate) destination: Arc<str>,
    pub(crate) payload: Bytes,
    pub(crate) headers: H,
    /// Where the time in the queue is a metric.
    pub(crate) sent_at: Option<SystemTime>,
}
