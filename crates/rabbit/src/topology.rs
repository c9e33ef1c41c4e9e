use std::sync::Arc;

use lapin::Channel;
use throughline_core::BrokerError;

use crate::options::Limits;
use crate::subscription::Queue;

/// Declares all that a subscription needs: exchanges, bindings between them, the queue, its bindings. Returns the queue's name, which is the
/// server's where it chose one. A declaration that is refused closes the channel.
pub(crate) async fn declare(channel: &Channel, queue: &Queue, limits: &Limits) -> Result<Arc<str>, BrokerError> {
    let _ = (channel, queue, limits);
    unimplemented!()
}
