use std::sync::Arc;

use throughline_core::BrokerError;
use throughline_core::broker::{Subscriber, Subscription};

use crate::connection::Connection;

/// Declares what a subscription needs and begins to consume.
pub(crate) async fn open(
    connection: &Arc<Connection>,
    subscription: &Subscription,
) -> Result<Box<dyn Subscriber>, BrokerError> {
    let _ = (connection, subscription);
    unimplemented!()
}
