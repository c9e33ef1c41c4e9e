//! What travels between the services, and where.

use serde::{Deserialize, Serialize};
use throughline::kafka::NewTopic;

/// The topic on Kafka with the orders.
pub const ORDERS: &str = "shop.orders";

/// The topic on Kafka with the orders that the warehouse gave up.
pub const DEAD_ORDERS: &str = "shop.orders.dead";

/// The queue on RabbitMQ with the requests for prices: the body is the item, the answer a [`Price`].
pub const PRICES: &str = "shop.prices";

/// The queue on RabbitMQ with what is reserved.
pub const RESERVED: &str = "shop.reserved";

/// The subject on NATS with what customers are told.
pub const NOTICES: &str = "shop.notices";

/// The stream of NATS that keeps [`NOTICES`].
pub const NOTICES_STREAM: &str = "SHOP_NOTICES";

/// The header of an order that was taken out of the dead letters once.
pub const REDRIVEN: &str = "redriven";

/// The `error.type` of an order whose customer gets no credit: no further attempt mends that.
pub const NO_CREDIT: &str = "no_credit";

/// The `error.type` of an order of more items than there are: no further attempt mends that.
pub const OUT_OF_STOCK: &str = "out_of_stock";

/// An order, as the storefront took it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Order {
    /// The number of the order.
    pub id: u64,
    /// What was ordered.
    pub item: String,
    /// How many of it.
    pub count: u32,
    /// The price of one, in cents.
    pub cents: u32,
}

/// The price of an item.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Price {
    /// The price of one, in cents.
    pub cents: u32,
}

/// An order that lies ready in a warehouse.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Reserved {
    /// The number of the order.
    pub order: u64,
    /// The price of all of it, in cents.
    pub cents: u32,
}

/// The invoice that a customer is told of.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Notice {
    /// The number of the order.
    pub order: u64,
    /// The price with tax, in cents.
    pub cents: u32,
    /// Where it lies ready.
    pub warehouse: String,
}

/// Returns how a topic is created that is missing: three partitions, one copy.
#[must_use]
pub fn new_topic() -> NewTopic {
    NewTopic::partitions(3).replication(1)
}
