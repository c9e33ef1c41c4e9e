use std::sync::Arc;

use throughline_core::broker::Subscription;
use throughline_core::message::{Operations, Source, System, Target};

/// `messaging.system`.
pub(crate) const SYSTEM: &str = "pigeon_post";

/// The attribute for the number of a message.
pub(crate) const NUMBER: &str = "messaging.pigeon_post.number";

/// The client's own words for what it does.
const OPERATIONS: Operations = Operations::DEFAULT.with_ack("ack").with_retry("again").with_reject("discard");

/// The first word of the names that the client makes for answers.
pub(crate) const INBOX: &str = "inbox";

/// Describes a connection.
pub(crate) fn system(server: Option<(&str, u16)>) -> Arc<System> {
    Arc::new(System::new(SYSTEM, OPERATIONS).with_connection(server, None))
}

/// Describes what a subscription reads from.
pub(crate) fn source(system: &Arc<System>, subscription: &Subscription) -> Source {
    let source = Source::new(Arc::clone(system)).with_patterns(subscription.patterns().iter().cloned());
    match subscription.group() {
        Some(group) => source.with_group(group),
        None => source,
    }
}

/// Describes where a message goes. The name of an inbox is never the same twice, so its template stands for it.
pub(crate) fn target<'a>(subject: &'a str, template: Option<&'a str>) -> Target<'a> {
    let target = Target::new(subject);
    match (subject.split_once('.'), template) {
        (Some((INBOX, _)), _) => target.with_template(INBOX).temporary(),
        (_, Some(template)) => target.with_template(template),
        (_, None) => target,
    }
}
