//! The plain client, as a careful program uses it, and the queues of the rounds.

use std::error::Error;
use std::time::Duration;

use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

use super::hand;
use crate::load::body;

/// After which time without a reader the server removes a queue of the rounds.
pub(super) const LEFT_FOR: Duration = Duration::from_secs(600);

/// How many messages are stored before the next ones are sent when a queue is filled.
const AT_A_TIME: usize = 1_000;

const PERSISTENT: u8 = 2;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub(super) async fn connect(url: &str) -> lapin::Result<Connection> {
    Connection::connect(url, ConnectionProperties::default().with_connection_name(hand::CLIENT.into())).await
}

/// Opens a channel on which publishes are confirmed.
pub(super) async fn confirming(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// Publishes one message that has to arrive somewhere, and waits until the server has stored it.
pub(super) async fn publish(channel: &Channel, queue: &str, headers: Option<FieldTable>) -> Result<()> {
    let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    if let Some(headers) = headers {
        properties = properties.with_headers(headers);
    }
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let confirmed = channel.basic_publish("".into(), queue.into(), options, &body(), properties).await?.await?;
    match confirmed {
        Confirmation::Ack(None) => Ok(()),
        other => Err(format!("the server did not store a message: {other:?}").into()),
    }
}

/// Declares a queue with as many messages at most, and empties it.
pub(super) async fn declare(url: &str, queue: &str, at_most: Option<i32>) -> Result<()> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-expires".into(), AMQPValue::LongLongInt(i64::try_from(LEFT_FOR.as_millis())?));
    if let Some(most) = at_most {
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(most));
    }
    channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await?;
    channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await?;
    Ok(connection.close(200, "declared".into()).await?)
}

/// Empties a queue and puts as many messages with the headers of a traced publisher into it.
pub(super) async fn fill(url: &str, queue: &str, messages: usize) -> Result<()> {
    let connection = connect(url).await?;
    let channel = confirming(&connection).await?;
    channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await?;
    for _ in 0..messages / AT_A_TIME {
        let publishes = (0..AT_A_TIME).map(|_| publish(&channel, queue, Some(hand::sampled())));
        join_all(publishes).await.into_iter().collect::<Result<()>>()?;
    }
    Ok(connection.close(200, "filled".into()).await?)
}
