use lapin::types::FieldTable;
use throughline_core::BrokerError;

use super::arguments::number;
use super::exchange::{Declares, Exchange};
use super::queue::{DELIVERY_LIMIT, Kind, Queue};
use crate::death::DELAY_MARK;
use crate::names::{LONGEST, short};

impl Queue {
    /// Checks what can be known without the server.
    pub(crate) fn check(&self) -> Result<(), BrokerError> {
        short("queue", &self.name)?;
        if let Some(tag) = &self.consumer_tag {
            short("consumer tag", tag)?;
        }
        if let Some(wrong) = &self.wrong {
            return Err(BrokerError::configuration(format!("{self}: {wrong}")));
        }
        self.bindings.iter().try_for_each(|binding| {
            short("routing key", &binding.key)?;
            check_headers(&binding.exchange, &binding.arguments)?;
            check_exchange(&binding.exchange)
        })?;
        match self.contradiction() {
            Some(why) => Err(BrokerError::configuration(format!("{self}: {why}"))),
            None => Ok(()),
        }
    }

    /// Returns what the server would refuse, or would take and do something else.
    fn contradiction(&self) -> Option<&'static str> {
        let of_declaration = || {
            let is_declared = matches!(self.declares, Declares::As(_));
            if is_declared { self.wrong_flags().or_else(|| self.wrong_arguments()) } else { None }
        };
        self.wrong_reading().or_else(of_declaration)
    }

    /// Returns what is wrong with how it is consumed.
    fn wrong_reading(&self) -> Option<&'static str> {
        if self.prefetch == Some(0) {
            return Some("a prefetch of 0 is no limit: the service would hold the whole queue in memory; set a number");
        }
        if self.is_generated() && !(matches!(self.declares, Declares::As(_)) && self.exclusive) {
            return Some(
                "a queue without a name is declared for one connection: name it, or use `Queue::generated` without `passive` and \
                 `no_declare`",
            );
        }
        let has_delay_queues = !self.retries_in_place() && !self.acks_on_receipt;
        if has_delay_queues && self.name.len() + DELAY_MARK.len() + LONGEST_DELAY > LONGEST {
            return Some(
                "its name leaves no place for those of its delay queues, which are 10 bytes longer, and AMQP takes 255: use a shorter one, \
                 or `retry_in_place`",
            );
        }
        if self.is_stream() && self.acks_on_receipt {
            return Some("a stream delivers no message again, whenever it is acknowledged: leave out `ack_on_receipt`");
        }
        if self.is_stream() && self.retries_in_place {
            return Some(
                "a message of a stream is not delivered again: leave out `retry_in_place`; it is tried again in its place anyway",
            );
        }
        if self.exclusive_consumer && self.arguments.contains_key("x-single-active-consumer") {
            return Some(
                "a queue with `single_active_consumer` takes no exclusive consumer: leave out `exclusive_consumer`",
            );
        }
        None
    }

    /// Returns what is wrong with the queue's name, kind and life.
    fn wrong_flags(&self) -> Option<&'static str> {
        if self.name.starts_with("amq.") {
            return Some("names that begin with `amq.` are the server's: choose another, or say `passive`");
        }
        let is_replicated = matches!(self.kind, Kind::Quorum | Kind::Stream(_));
        if is_replicated && (self.exclusive || self.auto_delete || !self.durable || self.is_generated()) {
            return Some(
                "quorum queues and streams are durable and shared: leave out `exclusive`, `auto_delete`, `transient`",
            );
        }
        if !self.durable && !self.exclusive {
            return Some(
                "a transient queue that several connections share is refused by new servers: make it durable or `exclusive`",
            );
        }
        None
    }

    /// Returns what is wrong with the arguments of the declaration.
    fn wrong_arguments(&self) -> Option<&'static str> {
        let says = |name: &str| self.arguments.contains_key(name);
        if says("x-queue-type") {
            return Some("`x-queue-type` is said by `quorum` and `stream`: leave out the argument");
        }
        if self.kind != Kind::Classic && says("x-max-priority") {
            return Some("only classic queues have `max_priority`");
        }
        if self.kind != Kind::Quorum && says(DELIVERY_LIMIT) {
            return Some("only quorum queues have a `delivery_limit`: add `quorum`");
        }
        if self.is_stream() && NOT_OF_STREAMS.iter().any(|name| says(name)) {
            return Some(
                "a stream keeps its messages, whoever reads them: it has no dead letters, no `message_ttl`, `expires`, `max_length`, \
                 `overflow`, `single_active_consumer`; use `max_bytes`, or the argument `x-max-age`",
            );
        }
        if number(&self.arguments, "x-expires") == Some(0) {
            return Some("`expires` of less than a millisecond is refused by the server: set more, or leave it out");
        }
        if says("x-dead-letter-routing-key") && !says("x-dead-letter-exchange") {
            return Some("a key of dead letters needs an exchange: add `dead_letter_exchange`");
        }
        let overflow = self.text_argument("x-overflow");
        if self.is_quorum() && overflow == Some("reject-publish-dlx") {
            return Some(
                "quorum queues have no `Overflow::RejectPublishDeadLetter`, and the server would drop the oldest messages without a \
                 word: use `Overflow::RejectPublish`",
            );
        }
        if self.text_argument("x-dead-letter-strategy") == Some("at-least-once")
            && !(self.is_quorum() && overflow == Some("reject-publish") && says("x-dead-letter-exchange"))
        {
            return Some(
                "`dead_letter_at_least_once` is only for a quorum queue with `dead_letter_exchange` and \
                 `overflow(Overflow::RejectPublish)`: the server would do without it and say nothing",
            );
        }
        None
    }
}

/// How many bytes a delay has in the name of its queue, as in `10s`.
const LONGEST_DELAY: usize = 3;

/// What the server refuses for streams.
const NOT_OF_STREAMS: [&str; 8] = [
    "x-message-ttl",
    "x-expires",
    "x-max-length",
    "x-overflow",
    "x-single-active-consumer",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
];

fn check_exchange(exchange: &Exchange) -> Result<(), BrokerError> {
    short("exchange", &exchange.name)?;
    if let Some(wrong) = &exchange.wrong {
        return Err(BrokerError::configuration(format!("exchange `{}`: {wrong}", exchange.name)));
    }
    if exchange.name.is_empty() {
        return Err(BrokerError::configuration(
            "the default exchange leads to each queue by its name: it takes no bindings",
        ));
    }
    exchange.from.iter().try_for_each(|(source, key, arguments)| {
        short("routing key", key)?;
        check_headers(source, arguments)?;
        check_exchange(source)
    })
}

/// Refuses a binding by headers where the server would look at the key alone and say nothing.
fn check_headers(exchange: &Exchange, arguments: &FieldTable) -> Result<(), BrokerError> {
    use lapin::ExchangeKind::{Direct, Fanout, Topic};
    if arguments.contains_key("x-match") && matches!(&exchange.declares, Declares::As(Direct | Fanout | Topic)) {
        return Err(BrokerError::configuration(format!(
            "exchange `{}` does not look at headers, and something is bound to it by headers: make it `Exchange::headers`, or bind by a key",
            exchange.name
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lapin::types::AMQPValue;

    use super::*;
    use crate::subscription::{Overflow, StreamOffset};

    fn refused(queue: &Queue, part: &str) {
        let failed = queue.check().expect_err(part).to_string();
        assert!(failed.contains(part), "{part} in {failed}");
    }

    #[test]
    fn what_the_server_takes_is_not_refused() {
        let bound = Queue::new("q").bind(Exchange::topic("e"), "#").bind(Exchange::topic("amq.topic"), "a");
        let dead = Queue::new("q").quorum().dead_letter_exchange("", "dead");
        let takes = [
            bound,
            Queue::generated(),
            Queue::new("q").exclusive().transient(),
            Queue::new("amq.gen-x").passive(),
            Queue::new("q").stream(StreamOffset::Next).max_bytes(1_000_000),
            dead.overflow(Overflow::RejectPublish).dead_letter_at_least_once(),
        ];
        for queue in takes {
            queue.check().unwrap_or_else(|failed| panic!("{failed}"));
        }
    }

    #[test]
    fn names_over_255_bytes_are_refused_before_anything_is_sent() {
        let long = || "ü".repeat(128);
        refused(&Queue::new(long()), "256 bytes");
        refused(&Queue::new("q").consumer_tag(long()), "256 bytes");
        refused(&Queue::new("q").argument(&long(), AMQPValue::Boolean(true)), "256 bytes");
        refused(&Queue::new("q").bind(Exchange::topic(long()), ""), "256 bytes");
        refused(&Queue::new("q").bind(Exchange::topic("e"), long()), "256 bytes");
        refused(&Queue::new("q").bind(Exchange::topic("e").bound_to(Exchange::topic("f"), long()), ""), "256 bytes");
        let argument = Exchange::topic("e").argument(&long(), AMQPValue::Boolean(true));
        refused(&Queue::new("q").bind(argument, ""), "256 bytes");
        let header = [(&*long(), AMQPValue::Boolean(true))];
        refused(&Queue::new("q").bind_headers(Exchange::headers("h"), header), "256 bytes");
    }

    #[test]
    fn a_name_that_leaves_no_place_for_its_delay_queues_is_refused_at_the_start() {
        let named = |bytes| Queue::new("q".repeat(bytes));
        named(245).check().expect("`.retry.10s` has a place");
        refused(&named(246), "`retry_in_place`");
        named(255).retry_in_place().check().expect("it has no delay queues");
        named(255).exclusive().check().expect("it has no delay queues");
        named(255).ack_on_receipt().check().expect("nothing is tried again");
    }

    #[test]
    fn headers_lead_nowhere_but_at_an_exchange_that_looks_at_them() {
        let acme = || [("tenant", AMQPValue::LongString("acme".into()))];
        for exchange in [Exchange::direct("e"), Exchange::fanout("e"), Exchange::topic("e")] {
            refused(&Queue::new("q").bind_headers(exchange.clone(), acme()), "`Exchange::headers`");
            refused(&Queue::new("q").bind_any_header(exchange.clone(), acme()), "`Exchange::headers`");
            let matching = [("x-match", AMQPValue::LongString("all".into()))];
            let before = Exchange::fanout("f").bound_with(exchange, "", matching);
            refused(&Queue::new("q").bind(before, ""), "`Exchange::headers`");
        }
        for exchange in [Exchange::headers("e"), Exchange::named("e"), Exchange::of_kind("x-ours", "e")] {
            Queue::new("q").bind_headers(exchange, acme()).check().expect("it may look at headers");
        }
    }

    #[test]
    fn a_number_that_ends_the_connection_is_refused() {
        refused(&Queue::new("q").argument("x-ours", AMQPValue::Double(f64::NAN)), "`x-ours`");
    }

    #[test]
    fn contradictions_are_refused_and_say_what_to_change() {
        let q = || Queue::new("q");
        refused(&q().prefetch(0), "set a number");
        refused(&Queue::new(""), "`Queue::generated`");
        refused(&Queue::generated().passive(), "without `passive`");
        refused(&Queue::new("amq.q"), "choose another");
        refused(&Queue::generated().quorum(), "leave out `exclusive`");
        refused(&q().quorum().exclusive(), "leave out `exclusive`");
        refused(&q().quorum().max_priority(3), "only classic");
        refused(&q().transient(), "durable or `exclusive`");
        refused(&q().delivery_limit(3), "add `quorum`");
        refused(&q().argument("x-queue-type", AMQPValue::LongString("quorum".into())), "said by `quorum`");
        refused(&q().exclusive_consumer().single_active_consumer(), "leave out `exclusive_consumer`");
        refused(&q().expires(Duration::ZERO), "`expires`");
        refused(
            &q().argument("x-dead-letter-routing-key", AMQPValue::LongString("k".into())),
            "`dead_letter_exchange`",
        );
        refused(&q().quorum().overflow(Overflow::RejectPublishDeadLetter), "`Overflow::RejectPublish`");
        refused(&q().bind(Exchange::direct(""), "q"), "takes no bindings");
    }

    #[test]
    fn at_least_once_needs_all_that_the_server_needs() {
        let complete = || Queue::new("q").quorum().dead_letter_exchange("dead", "").dead_letter_at_least_once();
        refused(&complete(), "`overflow(Overflow::RejectPublish)`");
        refused(&complete().overflow(Overflow::DropHead), "`overflow(Overflow::RejectPublish)`");
        let nowhere = Queue::new("q").quorum().overflow(Overflow::RejectPublish).dead_letter_at_least_once();
        refused(&nowhere, "`dead_letter_exchange`");
    }

    #[test]
    fn a_stream_is_refused_what_it_cannot_do() {
        let stream = || Queue::new("q").stream(StreamOffset::First);
        refused(&stream().ack_on_receipt(), "leave out `ack_on_receipt`");
        refused(&stream().retry_in_place(), "leave out `retry_in_place`");
        refused(&stream().dead_letter_exchange("dead", ""), "no dead letters");
        refused(&stream().message_ttl(Duration::from_secs(1)), "`max_bytes`");
        refused(&stream().single_active_consumer(), "`max_bytes`");
    }
}
