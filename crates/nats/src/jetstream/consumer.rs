use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Config, Info};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::stream::Stream as NativeStream;
use throughline_core::BrokerError;
use throughline_core::broker::{BrokerErrorKind, Pattern, Subscription};
use tracing::info;

use super::reuse::{Contradiction, contradiction};
use crate::connection::Connection;
use crate::protocol::check_name;
use crate::semconv::WILDCARDS;
use crate::subscriber::wire_subject;
use crate::{Stream, error};

/// Returns the subjects the consumer is limited to; none when it takes all of its stream.
///
/// The patterns of the subscription count, not those of the builder: a router may have put a prefix before them.
pub(crate) fn filters(subscription: &Subscription, stream: &Stream) -> Vec<Pattern> {
    let declared = stream.declared.iter().flat_map(|config| &config.subjects);
    let known_only_by_declaration =
        declared.map(String::as_str).eq(subscription.patterns().iter().map(Pattern::as_str));
    let is_unknown = stream.declared.is_none() && matches!(subscription.patterns(), [all] if all.as_str() == ">");
    if stream.filters.is_empty() && (known_only_by_declaration || is_unknown) {
        return Vec::new();
    }
    subscription.patterns().to_vec()
}

/// Returns the configuration of a consumer that would be created for a subscription.
pub(super) fn wanted(
    connection: &Connection,
    subscription: &Subscription,
    stream: &Stream,
) -> Result<Config, BrokerError> {
    let Some(durable) = stream.durable.as_deref() else {
        return Err(BrokerError::configuration(format!(
            "the subscription to stream {0} has no name: add `.durable(..)`",
            stream.name
        )));
    };
    check_name("durable consumer", durable)?;
    check_name("stream", &stream.name)?;
    let mut subjects = filters(subscription, stream).iter().map(wire_subject).collect::<Result<Vec<_>, _>>()?;
    for subject in &subjects {
        connection.line.check_api(&[&stream.name, durable, subject], connection.inbox_prefix.len())?;
    }
    let single = if subjects.len() == 1 { subjects.pop() } else { None };
    let deliver_subject = stream.push.then(|| format!("{}.{}.{durable}", connection.inbox_prefix, stream.name));
    if let Some(subject) = &deliver_subject {
        connection.line.check_subscription(subject, stream.deliver_group.as_deref())?;
    }
    Ok(Config {
        durable_name: Some(durable.to_owned()),
        deliver_subject,
        deliver_group: stream.deliver_group.as_deref().map(str::to_owned),
        deliver_policy: stream.start.unwrap_or_default().to_policy()?,
        ack_policy: AckPolicy::Explicit,
        ack_wait: stream.ack_wait.unwrap_or(Duration::ZERO),
        max_ack_pending: stream.max_ack_pending.unwrap_or(0),
        max_deliver: stream.max_deliver.unwrap_or(0),
        headers_only: stream.headers_only,
        filter_subject: single.unwrap_or_default(),
        filter_subjects: subjects,
        ..Config::default()
    })
}

/// Finds the stream, or creates it where the subscription says how.
pub(super) async fn stream(connection: &Connection, stream: &Stream) -> Result<NativeStream, BrokerError> {
    let context = &connection.link().jetstream;
    let missing = match context.get_stream(&*stream.name).await {
        Ok(found) => return checked(found, stream),
        Err(failed) => error::get_stream(failed, &stream.name),
    };
    match &stream.declared {
        Some(config) if missing.kind() == BrokerErrorKind::NotFound => {
            let created = context.create_stream(config).await;
            let created = created.map_err(|failed| error::create_stream(failed, &stream.name))?;
            info!(stream = &*stream.name, "the stream is created");
            Ok(created)
        }
        _ => Err(missing),
    }
}

/// Refuses a stream that lacks a subject it is declared with.
fn checked(found: NativeStream, stream: &Stream) -> Result<NativeStream, BrokerError> {
    let has = &found.cached_info().config.subjects;
    let covered = |subject: &String| has.iter().any(|has| Pattern::new(has.as_str(), WILDCARDS).matches(subject));
    let lacking = stream.declared.iter().flat_map(|config| &config.subjects).find(|subject| !covered(subject));
    match lacking {
        None => Ok(found),
        Some(subject) => Err(BrokerError::configuration(format!(
            "stream {} exists with the subjects {has:?} and lacks `{subject}`: \
             add it to the stream, or declare what it has",
            stream.name,
        ))),
    }
}

/// Refuses a filter that no subject of the stream matches: the consumer would wait for ever, and newer servers do not
/// object.
pub(super) fn check_filters(found: &NativeStream, wanted: &Config) -> Result<(), BrokerError> {
    let stream = &found.cached_info().config;
    // What comes from other streams has other subjects.
    if stream.mirror.is_some() || stream.sources.is_some() || stream.subject_transform.is_some() {
        return Ok(());
    }
    let mut filters = wanted.filter_subjects.iter().chain([&wanted.filter_subject]).filter(|filter| !filter.is_empty());
    match filters.find(|filter| !stream.subjects.iter().any(|subject| overlap(subject, filter))) {
        None => Ok(()),
        Some(filter) => Err(BrokerError::configuration(format!(
            "stream {} has the subjects {:?} and none of them matches the filter `{filter}`: \
             correct the filter or add the subject",
            stream.name, stream.subjects,
        ))),
    }
}

/// Tells whether a subject can match both.
fn overlap(one: &str, other: &str) -> bool {
    let (mut ones, mut others) = (one.split('.'), other.split('.'));
    loop {
        match (ones.next(), others.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(one), Some(other)) if one == other || one == "*" || other == "*" => {}
            _ => return false,
        }
    }
}

/// Finds the consumer and checks that it is what is wanted, or creates it.
pub(super) async fn consumer(native: &NativeStream, stream: &Stream, wanted: &Config) -> Result<Info, BrokerError> {
    let name = wanted.durable_name.as_deref().unwrap_or_default();
    match native.consumer_info(name).await {
        Ok(info) => match contradiction(wanted, &info, stream).or_else(|| Contradiction::bound(&info)) {
            None => {
                info!(stream = &*stream.name, consumer = name, "the consumer is there and is used");
                Ok(info)
            }
            Some(contradiction) => Err(contradiction.reused(stream, name)),
        },
        Err(failed) if failed.kind() == ConsumerInfoErrorKind::NotFound => create(native, stream, wanted, name).await,
        Err(failed) => Err(error::consumer_info(failed, &stream.name, name)),
    }
}

async fn create(native: &NativeStream, stream: &Stream, wanted: &Config, name: &str) -> Result<Info, BrokerError> {
    let created = native.create_consumer(wanted.clone()).await;
    let created = created.map_err(|failed| error::create_consumer(failed, &stream.name, name))?;
    let info = created.cached_info();
    match contradiction(wanted, info, stream) {
        None => {
            info!(stream = &*stream.name, consumer = name, "the consumer is created");
            Ok(info.clone())
        }
        Some(contradiction) => {
            // An older server leaves out what it does not know. It must not keep a consumer that takes other messages.
            let _ = native.delete_consumer(name).await;
            Err(contradiction.not_created(stream, name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_matches_a_stream_when_a_subject_can_match_both() {
        for (subject, filter) in
            [("orders.>", "orders.placed"), ("orders.placed", "orders.>"), ("a.*", "*.b"), ("a", "a"), (">", "x.y")]
        {
            assert!(overlap(subject, filter), "{subject} {filter}");
        }
        for (subject, filter) in [("orders.>", "orders"), ("orders.*", "orders.a.b"), ("a", "b"), ("a.b", "a")] {
            assert!(!overlap(subject, filter), "{subject} {filter}");
        }
    }
}
