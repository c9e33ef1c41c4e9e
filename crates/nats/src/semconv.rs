use std::sync::Arc;

use async_nats::ServerAddr;
use throughline_core::Destination;
use throughline_core::broker::{Pattern, Subscription, Wildcards};
use throughline_core::message::{Operations, Source, System, Target};

/// `messaging.system` of core NATS and JetStream.
// ATTR-S-03.
pub(crate) const SYSTEM: &str = "nats";

/// Opt-in: the stream a message came from.
// ATTR-J-08.
pub(crate) const NATS_STREAM: &str = "messaging.nats.stream";

/// Opt-in: the place of a message in its stream.
// ATTR-J-08.
pub(crate) const NATS_SEQUENCE: &str = "messaging.nats.sequence";

/// The project's own: messages of core NATS that were dropped before a handler took them.
pub(crate) const CONSUMER_DROPPED: &str = "throughline.consumer.dropped";

/// The signs of subject patterns.
pub(crate) const WILDCARDS: Wildcards = Wildcards::new('.', "*", ">");

/// The inbox prefix of a client that sets none.
pub(crate) const DEFAULT_INBOX: &str = "_INBOX";

/// The verbs of core NATS, which does not settle.
// SPAN-09, ATTR-N-09.
const CORE: Operations = Operations::DEFAULT;

// SPAN-10, ATTR-J-06.
const JETSTREAM: Operations =
    Operations::DEFAULT.with_receive("fetch").with_ack("ack").with_retry("nak").with_reject("term");

/// Describes one connection twice: with the verbs of core NATS, and with those of JetStream.
#[derive(Clone, Debug)]
pub(crate) struct Systems {
    pub(crate) core: Arc<System>,
    pub(crate) jetstream: Arc<System>,
}

impl Systems {
    pub(crate) fn new(server: Option<(&str, u16)>, client_id: Option<&str>) -> Self {
        let describe = |operations| Arc::new(System::new(SYSTEM, operations).with_connection(server, client_id));
        Self { core: describe(CORE), jetstream: describe(JETSTREAM) }
    }
}

/// Returns the host and port the user configured, unless they configured different ones.
// ATTR-C-17, ATTR-C-18.
pub(crate) fn server(configured: &[ServerAddr]) -> Option<(&str, u16)> {
    let (first, others) = configured.split_first()?;
    let server = (first.host(), first.port());
    let same = !server.0.is_empty() && others.iter().all(|other| (other.host(), other.port()) == server);
    same.then_some(server)
}

/// Describes what a core subscription reads from, an inbox by its prefix.
// ATTR-N-02, ATTR-N-05, ATTR-N-04.
pub(crate) fn core_source(system: &Arc<System>, subscription: &Subscription, inbox_prefix: &str) -> Source {
    let source = match inbox_template(subscription.destination(), inbox_prefix) {
        Some(prefix) => inbox_source(system, prefix),
        None => Source::new(Arc::clone(system)).with_patterns(subscription.patterns().iter().cloned()),
    };
    match subscription.group() {
        Some(group) => source.with_group(group),
        None => source,
    }
}

/// Describes an inbox that is read from: by its prefix.
// ATTR-N-04.
pub(crate) fn inbox_source(system: &Arc<System>, prefix: &str) -> Source {
    Source::new(Arc::clone(system)).with_template(prefix).temporary()
}

/// Describes what a consumer of a stream reads from: its subjects and name, and the group of a push consumer. Of several subjects none
/// is that of a span without a message.
// ATTR-J-02, ATTR-J-03, ATTR-J-04.
pub(crate) fn stream_source(system: &Arc<System>, filters: &[Pattern], consumer: &str, group: Option<&str>) -> Source {
    let source = Source::new(Arc::clone(system)).with_patterns(filters.iter().cloned());
    let source = if consumer.is_empty() { source } else { source.with_subscription(consumer) };
    match group {
        Some(group) => source.with_group(group),
        None => source,
    }
}

/// Describes where a message goes: an inbox by its prefix, anything else by its name and the template the user gave.
// ATTR-N-01 to -04.
pub(crate) fn target<'a>(destination: &'a Destination, inbox_prefix: &str) -> Target<'a> {
    let target = subject_target(destination.name(), destination.template(), inbox_prefix);
    if destination.is_temporary() { target.temporary() } else { target }
}

/// Describes where a message goes, by its subject and the template it was given.
pub(crate) fn subject_target<'a>(subject: &'a str, template: Option<&'a str>, inbox_prefix: &str) -> Target<'a> {
    let target = Target::new(subject);
    match (inbox_template(subject, inbox_prefix), template) {
        (Some(prefix), _) => target.with_template(prefix).temporary(),
        (None, Some(template)) => target.with_template(template),
        (None, None) => target,
    }
}

/// Returns what an inbox is shown by: the prefix of this client, or `_INBOX` for `_INBOX` and `_INBOX_…` of another one, whose
/// prefix is not ours to choose. Any other subject has none.
pub(crate) fn inbox_template<'a>(subject: &'a str, own_prefix: &str) -> Option<&'a str> {
    if subject.strip_prefix(own_prefix).is_some_and(|rest| rest.starts_with('.')) {
        return subject.get(..own_prefix.len());
    }
    let (first, _) = subject.split_once('.')?;
    (first == DEFAULT_INBOX || first.starts_with("_INBOX_")).then_some(DEFAULT_INBOX)
}

/// Returns the prefix a client puts before its inboxes.
pub(crate) fn inbox_prefix(client: &async_nats::Client) -> String {
    let inbox = client.new_inbox();
    inbox.rsplit_once('.').map_or_else(|| DEFAULT_INBOX.to_owned(), |(prefix, _)| prefix.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Subject;

    fn addresses(urls: &[&str]) -> Vec<ServerAddr> {
        urls.iter().map(|url| url.parse().unwrap()).collect()
    }

    fn systems() -> Systems {
        Systems::new(Some(("localhost", 4222)), Some("stock"))
    }

    #[test]
    fn the_server_is_what_was_configured() {
        assert_eq!(server(&addresses(&["localhost"])), Some(("localhost", 4222)), "ATTR-C-17");
        assert_eq!(server(&addresses(&["nats://10.0.0.1:4333"])), Some(("10.0.0.1", 4333)));
        assert_eq!(server(&addresses(&["a:4222", "a:4222"])), Some(("a", 4222)));
    }

    #[test]
    fn of_several_different_servers_none_is_named() {
        assert_eq!(server(&addresses(&["a:4222", "b:4222"])), None, "ATTR-C-17");
        assert_eq!(server(&addresses(&["a:4222", "a:4223"])), None);
        assert_eq!(server(&[]), None);
    }

    #[test]
    fn core_does_not_settle_and_jetstream_has_its_own_verbs() {
        let systems = systems();
        let core = systems.core.operations();
        assert_eq!((core.send, core.request, core.receive, core.process), ("publish", "request", "receive", "process"));
        assert_eq!((core.ack, core.retry, core.reject), (None, None, None), "ATTR-N-09");
        let stream = systems.jetstream.operations();
        assert_eq!((stream.send, stream.receive, stream.process), ("publish", "fetch", "process"));
        assert_eq!((stream.ack, stream.retry, stream.reject), (Some("ack"), Some("nak"), Some("term")), "ATTR-J-06");
    }

    #[test]
    fn both_descriptions_name_system_client_and_server() {
        let systems = systems();
        for system in [&systems.core, &systems.jetstream] {
            assert_eq!(system.name(), "nats", "ATTR-S-03");
            assert_eq!(system.client_id(), Some("stock"), "ATTR-N-07");
            assert_eq!(system.server(), Some(("localhost", Some(4222))), "ATTR-C-11, ATTR-C-12");
        }
    }

    #[test]
    fn a_wildcard_subscription_has_a_template() {
        let subscription = Subject::new("orders.{id}").queue_group("g").into();
        let source = core_source(&systems().core, &subscription, "_INBOX");
        assert_eq!(source.template.as_deref(), Some("orders.{id}"), "ATTR-N-02");
        assert_eq!(source.group.as_deref(), Some("g"), "ATTR-N-05");
        let exact = core_source(&systems().core, &Subject::new("orders").into(), "_INBOX");
        assert_eq!((exact.destination.as_deref(), exact.template), (Some("orders"), None));
    }

    #[test]
    fn an_inbox_that_is_read_from_is_shown_by_its_prefix() {
        let source = core_source(&systems().core, &Subject::new("_INBOX.a.*").into(), "svc.inbox");
        assert_eq!(source.template.as_deref(), Some("_INBOX"), "ATTR-N-04");
        assert!(source.temporary && source.anonymous && source.destination.is_none(), "ATTR-N-04, SPAN-19");
    }

    #[test]
    fn a_consumer_with_several_filters_has_no_name() {
        let filters = [Pattern::exact("orders.placed"), Pattern::new("bills.>", WILDCARDS)];
        let source = stream_source(&systems().jetstream, &filters, "dur", None);
        assert_eq!((source.destination, source.template), (None, None), "ATTR-J-04");
        assert_eq!(source.subscription.as_deref(), Some("dur"), "ATTR-J-02");
        assert_eq!(source.group, None, "ATTR-J-03");
    }

    #[test]
    fn an_inbox_is_shown_by_its_prefix() {
        for (subject, own, template) in [
            ("_INBOX.a.b", "_INBOX", "_INBOX"),
            ("svc.inbox.a.b", "svc.inbox", "svc.inbox"),
            ("_INBOX.a.b", "svc.inbox", "_INBOX"),
            ("_INBOX_chosen-by-others.a.b", "_INBOX", "_INBOX"),
            ("_INBOX_ours.a.b", "_INBOX_ours", "_INBOX_ours"),
        ] {
            let destination = Destination::new(subject);
            let target = target(&destination, own);
            assert_eq!(target.template.as_deref(), Some(template), "ATTR-N-04");
            assert!(target.temporary && target.anonymous, "ATTR-N-04");
            assert_eq!(target.name, subject, "ATTR-N-01");
        }
    }

    #[test]
    fn any_other_subject_has_only_the_template_the_user_gave() {
        let plain = Destination::new("orders.42");
        assert!(target(&plain, "_INBOX").template.is_none(), "ATTR-N-03");
        let computed = Destination::new("orders.42").with_template("orders.{id}");
        assert_eq!(target(&computed, "_INBOX").template.as_deref(), Some("orders.{id}"), "ATTR-N-03");
        let alike = Destination::new("_INBOXES.a");
        assert!(!target(&alike, "_INBOX").temporary);
        let asked = Destination::new("acme.replies.a").temporary();
        assert!(target(&asked, "_INBOX").temporary && target(&asked, "_INBOX").anonymous, "SPAN-19");
    }
}
