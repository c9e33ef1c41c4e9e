mod mismatch;
mod refusal;

use std::future::Future;
use std::sync::Arc;

use lapin::Channel;
use lapin::options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use throughline_core::BrokerError;
use throughline_core::broker::{BrokerErrorKind, Pattern};
use tokio::time::timeout;

use self::refusal::refused;
pub(crate) use self::refusal::{consume_error, is_locked};
use crate::connection::Connection;
use crate::error::{self, CONNECTION_LOST};
use crate::names::short;
use crate::options::Limits;
use crate::semconv::WILDCARDS;
use crate::subscription::{Binding, Declares, Exchange, Queue};

/// Declares all that a subscription needs: exchanges, bindings between them, the queue, its bindings. Returns the queue's name, which is the
/// server's where it chose one. A declaration that is refused closes the channel.
pub(crate) async fn declare(channel: &Channel, queue: &Queue, limits: &Limits) -> Result<Arc<str>, BrokerError> {
    let declaring = Declaring { channel, limits };
    if queue.declares == Declares::Nothing {
        // It is only asked for, so that one that is missing is an error at the start.
        return declaring.queue(queue).await;
    }
    for Binding { exchange, .. } in &queue.bindings {
        Box::pin(declaring.exchange(exchange)).await?;
    }
    for Binding { exchange, .. } in &queue.bindings {
        Box::pin(declaring.bind_exchange(exchange)).await?;
    }
    let name = declaring.queue(queue).await?;
    for binding in &queue.bindings {
        declaring.bind(queue, &name, binding).await?;
    }
    Ok(name)
}

/// Declares a durable queue where messages wait, on a channel of its own. Fails at once where there is no connection.
pub(crate) async fn declare_delay(
    connection: &Connection,
    name: &str,
    arguments: FieldTable,
) -> Result<(), BrokerError> {
    let Some(link) = connection.consuming.current() else {
        return Err(BrokerError::new(BrokerErrorKind::Disconnected, CONNECTION_LOST, "RabbitMQ is not reached"));
    };
    let queue = short("queue", name)?;
    let declaring = async {
        let channel = link.client.create_channel().await?;
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue, options, arguments).await?;
        channel.close(200, "declared".into()).await
    };
    answered(&connection.limits, &format!("declare delay queue `{name}`"), declaring).await
}

/// Waits for the answer to a declaration.
async fn answered<T>(
    limits: &Limits,
    doing: &str,
    call: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrokerError> {
    match timeout(limits.answer, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(failed)) => Err(refused(&failed, doing)),
        Err(_) => Err(error::timed_out(doing, limits.answer)),
    }
}

struct Declaring<'a> {
    channel: &'a Channel,
    limits: &'a Limits,
}

impl Declaring<'_> {
    /// Declares an exchange, those before it first.
    async fn exchange(&self, exchange: &Exchange) -> Result<(), BrokerError> {
        for (source, ..) in &exchange.from {
            Box::pin(self.exchange(source)).await?;
        }
        let (kind, passive) = match &exchange.declares {
            Declares::As(kind) => (kind.clone(), false),
            Declares::Passive => (lapin::ExchangeKind::Direct, true),
            Declares::Nothing => return Ok(()),
        };
        let options = ExchangeDeclareOptions {
            passive,
            durable: exchange.durable,
            auto_delete: exchange.auto_delete,
            internal: exchange.internal,
            nowait: false,
        };
        let doing = format!("{} exchange `{}`", if passive { "find" } else { "declare" }, exchange.name);
        let name = short("exchange", &exchange.name)?;
        answered(self.limits, &doing, self.channel.exchange_declare(name, kind, options, exchange.arguments.clone()))
            .await
    }

    async fn bind_exchange(&self, exchange: &Exchange) -> Result<(), BrokerError> {
        for (source, key, arguments) in &exchange.from {
            Box::pin(self.bind_exchange(source)).await?;
            let doing = format!("bind exchange `{}` to exchange `{}` with key `{key}`", exchange.name, source.name);
            let (to, from) = (short("exchange", &exchange.name)?, short("exchange", &source.name)?);
            let key = short("routing key", &wire_key(source, key))?;
            let binding = self.channel.exchange_bind(to, from, key, ExchangeBindOptions::default(), arguments.clone());
            answered(self.limits, &doing, binding).await?;
        }
        Ok(())
    }

    async fn queue(&self, queue: &Queue) -> Result<Arc<str>, BrokerError> {
        let passive = !matches!(queue.declares, Declares::As(_));
        let options = QueueDeclareOptions {
            passive,
            durable: queue.durable,
            exclusive: queue.exclusive,
            auto_delete: queue.auto_delete,
            nowait: false,
        };
        let doing = if passive { format!("find {queue}") } else { format!("declare {queue}") };
        let name = short("queue", &queue.name)?;
        let arguments = if passive { FieldTable::default() } else { queue.declared_arguments() };
        let declared = answered(self.limits, &doing, self.channel.queue_declare(name, options, arguments)).await?;
        Ok(declared.name().as_str().into())
    }

    async fn bind(&self, queue: &Queue, name: &str, binding: &Binding) -> Result<(), BrokerError> {
        let Binding { exchange, key, arguments } = binding;
        let doing = format!("bind {queue} to exchange `{}` with key `{key}`", exchange.name);
        let key = short("routing key", &wire_key(exchange, key))?;
        let (queue, exchange) = (short("queue", name)?, short("exchange", &exchange.name)?);
        let binding = self.channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), arguments.clone());
        answered(self.limits, &doing, binding).await
    }
}

/// Returns a key as the server takes it: where keys are patterns, a `{name}` is a word of any kind.
fn wire_key(exchange: &Exchange, key: &Arc<str>) -> Arc<str> {
    if exchange.has_patterns() { Pattern::new(Arc::clone(key), WILDCARDS).to_wire().into() } else { Arc::clone(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_is_a_star_for_the_server() {
        let key = |exchange: Exchange| wire_key(&exchange, &Arc::from("placed.{country}"));
        assert_eq!(key(Exchange::topic("orders")), Arc::from("placed.*"));
        assert_eq!(key(Exchange::direct("orders")), Arc::from("placed.{country}"));
    }
}
