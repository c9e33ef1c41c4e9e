use std::sync::Arc;

use throughline_core::Delivery;

/// What is the same for all messages of a consumer.
#[derive(Clone, Debug)]
pub(crate) struct ReadFrom {
    /// The queue, with the name the server gave it.
    pub(crate) queue: Arc<str>,
    /// How often the server delivers a message at most, where it counts (quorum queues): the limit plus one.
    pub(crate) most_deliveries: Option<u32>,
    /// Whether the queue is a stream, whose offset is the position.
    pub(crate) is_stream: bool,
}

/// Turns a message of the client into a delivery. `again` is how often it was handed out before by this process without the server's
/// counting it.
pub(crate) fn to_delivery(message: lapin::message::Delivery, from: &Arc<ReadFrom>, again: u32) -> Delivery {
    let _ = (message, from, again);
    unimplemented!()
}
