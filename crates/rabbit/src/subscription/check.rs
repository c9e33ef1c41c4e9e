use throughline_core::BrokerError;

use super::exchange::{Declares, Exchange};
use super::queue::{Kind, Queue};
use crate::names::short;

impl Queue {
    /// Checks what can be known without the server.
    pub(crate) fn check(&self) -> Result<(), BrokerError> {
        short("queue", &self.name)?;
        if let Some(tag) = &self.consumer_tag {
            short("consumer tag", tag)?;
        }
        if let Some(wrong) = &self.wrong {
            return Err(BrokerError::configuration(format!("{self} has {wrong}, and AMQP takes 255 at most")));
        }
        self.bindings.iter().try_for_each(|binding| {
            short("routing key", &binding.key)?;
            check_exchange(&binding.exchange)
        })?;
        match self.contradiction() {
            Some(why) => Err(BrokerError::configuration(format!("{self}: {why}"))),
            None => Ok(()),
        }
    }

    fn contradiction(&self) -> Option<&'static str> {
        let is_declared = matches!(self.declares, Declares::As(_));
        let is_replicated = matches!(self.kind, Kind::Quorum | Kind::Stream(_));
        if self.prefetch == Some(0) {
            return Some("a prefetch of 0 is no limit: the service would hold the whole queue in memory; set a number");
        }
        if self.is_generated() && !is_declared {
            return Some("a queue without a name has to be declared: leave out `passive` and `no_declare`, or name it");
        }
        if self.is_stream() && self.no_ack {
            return Some("a stream is read with acknowledgements, which tell the server how fast: leave out `no_ack`");
        }
        if self.is_stream() && self.retries_in_place {
            return Some(
                "a message of a stream is not delivered again: leave out `retry_in_place`; it is tried again in its place anyway",
            );
        }
        if !is_declared {
            return None;
        }
        if is_replicated && (self.exclusive || self.auto_delete || !self.durable || self.is_generated()) {
            return Some(
                "quorum queues and streams are durable and shared: leave out `exclusive`, `auto_delete`, `transient`",
            );
        }
        if is_replicated && self.arguments.contains_key("x-max-priority") {
            return Some("only classic queues have `max_priority`");
        }
        // R15.
        if !self.durable && !self.exclusive {
            return Some(
                "a transient queue that several connections share is refused by new servers: make it durable or `exclusive`",
            );
        }
        if self.delivery_limit.is_some() && self.kind != Kind::Quorum {
            return Some("only quorum queues have a `delivery_limit`: add `quorum`");
        }
        // R14.
        if self.arguments.contains_key("x-dead-letter-strategy") {
            let is_complete = self.kind == Kind::Quorum
                && self.text_argument("x-overflow") == Some(b"reject-publish")
                && self.arguments.contains_key("x-dead-letter-exchange");
            if !is_complete {
                return Some(
                    "`dead_letter_at_least_once` is only for a quorum queue with `dead_letter_exchange` and \
                     `overflow(Overflow::RejectPublish)`: the server would do without it and say nothing",
                );
            }
        }
        None
    }
}

fn check_exchange(exchange: &Exchange) -> Result<(), BrokerError> {
    short("exchange", &exchange.name)?;
    if let Some(wrong) = &exchange.wrong {
        let name = &exchange.name;
        return Err(BrokerError::configuration(format!(
            "exchange `{name}` has an argument whose name has {wrong}, and AMQP takes 255"
        )));
    }
    if exchange.name.is_empty() {
        return Err(BrokerError::configuration(
            "the default exchange leads to each queue by its name: it takes no bindings",
        ));
    }
    exchange.from.iter().try_for_each(|(source, key, _)| {
        short("routing key", key)?;
        check_exchange(source)
    })
}
