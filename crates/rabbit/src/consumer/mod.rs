mod caution;
mod copies;
mod held;
mod opening;
mod session;
mod subscriber;
mod tags;

use std::sync::Arc;

use throughline_core::BrokerError;
use throughline_core::broker::{Subscriber, Subscription};

use crate::connection::Connection;

/// Declares what a subscription needs, so that messages that are published from now on wait in its queue.
pub(crate) async fn open(
    connection: &Arc<Connection>,
    subscription: &Subscription,
) -> Result<Box<dyn Subscriber>, BrokerError> {
    Ok(Box::new(subscriber::RabbitSubscriber::open(connection, subscription).await?))
}
