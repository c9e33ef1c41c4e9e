use std::future::Future;
use std::sync::Arc;

use lapin::Channel;
use lapin::options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use throughline_core::BrokerError;
use throughline_core::broker::{BrokerErrorKind, Pattern};
use tokio::time::timeout;

use crate::error;
use crate::names::short;
use crate::options::Limits;
use crate::subscription::{Binding, Declares, Exchange, Queue};

/// `error.type` of a queue that another connection has.
const LOCKED: &str = "resource-locked";

/// Declares all that a subscription needs: exchanges, bindings between them, the queue, its bindings. Returns the queue's name, which is the
/// server's where it chose one. A declaration that is refused closes the channel.
// R4.
pub(crate) async fn declare(channel: &Channel, queue: &Queue, limits: &Limits) -> Result<Arc<str>, BrokerError> {
    if queue.declares == Declares::Nothing {
        return Ok(Arc::clone(&queue.name));
    }
    let declaring = Declaring { channel, limits };
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

struct Declaring<'a> {
    channel: &'a Channel,
    limits: &'a Limits,
}

impl Declaring<'_> {
    async fn answered<T>(&self, doing: &str, call: impl Future<Output = lapin::Result<T>>) -> Result<T, BrokerError> {
        match timeout(self.limits.answer, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failed)) => Err(declare_error(&failed, doing)),
            Err(_) => Err(error::timed_out(doing, self.limits.answer)),
        }
    }

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
        let doing = format!("declare exchange `{}`", exchange.name);
        let name = short("exchange", &exchange.name)?;
        self.answered(&doing, self.channel.exchange_declare(name, kind, options, exchange.arguments.clone())).await
    }

    async fn bind_exchange(&self, exchange: &Exchange) -> Result<(), BrokerError> {
        for (source, key, arguments) in &exchange.from {
            Box::pin(self.bind_exchange(source)).await?;
            let doing = format!("bind exchange `{}` to exchange `{}` with key `{key}`", exchange.name, source.name);
            let (to, from) = (short("exchange", &exchange.name)?, short("exchange", &source.name)?);
            let key = short("routing key", key)?;
            let binding = self.channel.exchange_bind(to, from, key, ExchangeBindOptions::default(), arguments.clone());
            self.answered(&doing, binding).await?;
        }
        Ok(())
    }

    async fn queue(&self, queue: &Queue) -> Result<Arc<str>, BrokerError> {
        let passive = queue.declares == Declares::Passive;
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
        let declared = self.answered(&doing, self.channel.queue_declare(name, options, arguments)).await?;
        Ok(declared.name().as_str().into())
    }

    async fn bind(&self, queue: &Queue, name: &str, binding: &Binding) -> Result<(), BrokerError> {
        let Binding { exchange, key, arguments } = binding;
        let doing = format!("bind {queue} to exchange `{}` with key `{key}`", exchange.name);
        let key: Arc<str> = if exchange.has_patterns() { wire_key(key).into() } else { Arc::clone(key) };
        let (queue, exchange) = (short("queue", name)?, short("exchange", &exchange.name)?);
        let key: ShortString = short("routing key", &key)?;
        let binding = self.channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), arguments.clone());
        self.answered(&doing, binding).await
    }
}

/// Returns a key as the server takes it: a `{name}` is a word of any kind.
fn wire_key(key: &Arc<str>) -> String {
    Pattern::new(Arc::clone(key), crate::semconv::WILDCARDS).to_wire()
}

/// Makes the error of a declaration that the server refused.
// R21.
fn declare_error(failed: &lapin::Error, doing: &str) -> BrokerError {
    let told = error::told(failed);
    let message = match error::reply_code(failed) {
        Some(406) => match Mismatch::read(&told) {
            Some(Mismatch { argument, ours, theirs }) => format!(
                "cannot {doing}: it exists with other arguments: {argument} is {theirs} on the server and {ours} here. Say here what \
                 the server has, or delete it there (what is in it is lost), or set the argument by a policy of the server, or leave \
                 the declaration to others (`passive`, `no_declare`)"
            ),
            None => format!("cannot {doing}: {told}"),
        },
        Some(404) => format!("cannot {doing}: {told}: declare it before, or correct the name"),
        Some(403) => format!(
            "cannot {doing}: {told}: grant the user the right (`rabbitmqctl set_permissions`), or choose another name: `amq.` is the server's"
        ),
        Some(405) => format!(
            "cannot {doing}: another connection has it for itself ({told}): stop that one, or leave out `exclusive`"
        ),
        _ => return error::broker(failed, doing),
    };
    let kind = match error::reply_code(failed) {
        Some(404) => BrokerErrorKind::NotFound,
        Some(403) => BrokerErrorKind::Unauthorized,
        _ => BrokerErrorKind::Configuration,
    };
    BrokerError::new(kind, error::error_type(failed), message).with_source(failed.clone())
}

/// Makes the error of a consumer that the server refused.
pub(crate) fn consume_error(failed: &lapin::Error, queue: &Queue, name: &str) -> BrokerError {
    let doing = format!("consume from {queue}");
    match error::reply_code(failed) {
        Some(403) if error::told(failed).contains("exclusive") => {
            let message = format!(
                "cannot {doing}: queue `{name}` has a consumer that is exclusive, or this one is to be and there are others ({}): \
                 stop the others, or leave out `exclusive_consumer` and use `single_active_consumer`",
                error::told(failed)
            );
            BrokerError::new(BrokerErrorKind::Configuration, LOCKED, message).with_source(failed.clone())
        }
        _ => declare_error(failed, &doing),
    }
}

/// Tells whether a queue or its consumer belongs to another connection, which may be the one that was lost.
pub(crate) fn is_locked(failed: &BrokerError) -> bool {
    failed.error_type() == LOCKED
}

/// What differs between a declaration and what is on the server.
#[derive(Debug, Eq, PartialEq)]
struct Mismatch {
    argument: String,
    ours: String,
    theirs: String,
}

impl Mismatch {
    /// Reads the text of the server: `inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received the value '5' of type 'signedint'
    /// but current is none`.
    fn read(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once("inequivalent arg '")?;
        let (argument, rest) = rest.split_once('\'')?;
        let (_, rest) = rest.split_once(": received ")?;
        let (ours, theirs) = rest.split_once(" but current is ")?;
        Some(Self { argument: format!("`{argument}`"), ours: value(ours), theirs: value(theirs) })
    }
}

/// Returns a value as the text of the server has it, without what is around it.
fn value(text: &str) -> String {
    let text = text.trim().trim_start_matches("the value ").trim_end_matches(['.', ',']);
    match text.strip_prefix('\'').and_then(|rest| rest.split_once('\'')) {
        Some((value, _)) => format!("`{value}`"),
        None if text.starts_with("none") => "not set".to_owned(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_names_argument_and_both_values() {
        let read = |text: &str| Mismatch::read(text).map(|found| [found.argument, found.ours, found.theirs]);
        let value = "406 PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received the value '5' of type \
                     'long' but current is none";
        assert_eq!(read(value).unwrap(), ["`x-max-length`", "`5`", "not set"]);
        let flag = "406 PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'";
        assert_eq!(read(flag).unwrap(), ["`durable`", "`true`", "`false`"]);
        assert!(read("something else").is_none());
    }

    #[test]
    fn a_placeholder_is_a_star_for_the_server() {
        assert_eq!(wire_key(&Arc::from("placed.{country}")), "placed.*");
    }
}
