use std::sync::Arc;

use throughline_core::broker::{Pattern, Subscription};
use throughline_core::message::{Operations, Source, System};

/// `messaging.system`.
// ATTR-S-04.
pub(crate) const SYSTEM: &str = "in_memory";

/// The template of the destinations that replies to a request go to; their names start with it and a dot.
pub(crate) const INBOX: &str = "_INBOX";

/// There is one verb for "not done": `nack` asks for the message again or gives it up.
// SPAN-11.
const OPERATIONS: Operations = Operations::DEFAULT.with_ack("ack").with_retry("nack").with_reject("nack");

/// Describes the connection: no server and no client, there are none.
// ATTR-M-02.
pub(crate) fn system() -> System {
    System::new(SYSTEM, OPERATIONS)
}

/// Describes what a subscription reads from: no group. A wildcard is the template, by its text: a message is shown by its name alone.
// ATTR-M-02, ATTR-M-01.
pub(crate) fn source(system: &Arc<System>, subscription: &Subscription) -> Source {
    Source::new(Arc::clone(system)).with_patterns(subscription.patterns().iter().map(Pattern::alone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Channel;

    fn source_of(subscription: impl Into<Subscription>) -> Source {
        source(&Arc::new(system()), &subscription.into())
    }

    #[test]
    fn a_plain_channel_has_a_name_and_no_template() {
        let source = source_of(Channel::new("orders").group("stock"));
        assert_eq!((source.destination.as_deref(), source.template), (Some("orders"), None));
        assert_eq!(source.group, None, "ATTR-M-02");
    }

    #[test]
    fn a_placeholder_makes_the_template() {
        let source = source_of(Channel::new("orders.{id}.paid"));
        assert_eq!(source.template.as_deref(), Some("orders.{id}.paid"), "ATTR-M-01");
    }

    #[test]
    fn several_patterns_have_no_single_name() {
        let source = source_of(Subscription::from(Channel::new("a.*")).with_pattern(Pattern::exact("b")));
        assert_eq!((source.destination, source.template, source.patterns.map(|all| all.len())), (None, None, Some(2)));
    }

    #[test]
    fn the_system_has_the_verbs_of_span_11() {
        let system = system();
        let verbs = system.operations();
        assert_eq!(
            (system.name(), verbs.send, verbs.receive, verbs.process),
            ("in_memory", "publish", "receive", "process")
        );
        assert_eq!((verbs.ack, verbs.retry, verbs.reject), (Some("ack"), Some("nack"), Some("nack")));
        assert_eq!((system.server(), system.client_id(), system.attributes().len()), (None, None, 0), "ATTR-M-02");
    }
}
