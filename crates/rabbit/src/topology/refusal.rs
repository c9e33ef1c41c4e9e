use throughline_core::BrokerError;
use throughline_core::broker::BrokerErrorKind;

use super::mismatch::{Mismatch, Unfit};
use crate::error;
use crate::subscription::Queue;

/// `error.type` of a queue that another connection has.
const LOCKED: &str = "resource-locked";

/// What to do about a declaration that differs.
const WAYS_OUT: &str = "say here what the server has, or delete it there (what is in it is lost), or set the argument by a policy of the \
                        server, or leave the declaration to others (`passive`, `no_declare`)";

/// Makes the error of a declaration that the server refused.
pub(super) fn refused(failed: &lapin::Error, doing: &str) -> BrokerError {
    let told = error::told(failed);
    let why = match error::reply_code(failed) {
        Some(406) => unfit(&told),
        Some(404) => format!("{told}: declare it before, or correct the name"),
        Some(403) => {
            format!(
                "{told}: grant the user the right (`rabbitmqctl set_permissions`), or choose another name: `amq.` is the server's"
            )
        }
        Some(405) => format!(
            "another connection has it for itself, or one side says `exclusive` and the other does not: stop the other one, or leave out \
             or add `exclusive` ({told})"
        ),
        Some(503) if told.contains(UNKNOWN_KIND) => no_plug_in(&told),
        _ => return error::broker(failed, doing),
    };
    let kind = match error::reply_code(failed) {
        Some(404) => BrokerErrorKind::NotFound,
        Some(403) => BrokerErrorKind::Unauthorized,
        _ => BrokerErrorKind::Configuration,
    };
    BrokerError::new(kind, error::error_type(failed), format!("cannot {doing}: {why}")).with_source(failed.clone())
}

const UNKNOWN_KIND: &str = "unknown exchange type";

fn no_plug_in(told: &str) -> String {
    format!("{told}: enable the plug-in that has this kind (`rabbitmq-plugins enable`), or correct the kind")
}

/// Explains a declaration that does not fit what is there, or the kind of queue.
fn unfit(told: &str) -> String {
    if let Some(Mismatch { argument, ours, theirs }) = Mismatch::read(told) {
        return format!(
            "it exists with other arguments: `{argument}` is {theirs} on the server and {ours} here: {WAYS_OUT}"
        );
    }
    // The server cuts its text where a name is long.
    if told.contains("inequivalent arg '") {
        return format!("it exists with other arguments: {told}: {WAYS_OUT}");
    }
    match Unfit::read(told) {
        Some(Unfit { argument, kind }) => format!("a {kind} queue has no `{argument}`: leave it out"),
        None if told.contains(UNKNOWN_KIND) => no_plug_in(told),
        None => told.to_owned(),
    }
}

/// Makes the error of a consumer that the server refused.
pub(crate) fn consume_error(failed: &lapin::Error, queue: &Queue, name: &str) -> BrokerError {
    let doing = format!("consume from {queue}");
    let told = error::told(failed);
    if error::reply_code(failed) != Some(403) || !told.contains("exclusive") {
        return refused(failed, &doing);
    }
    let message = format!(
        "cannot {doing}: queue `{name}` has a consumer that is exclusive, or this one is to be and there are others ({told}): stop the \
         others, or leave out `exclusive_consumer` and use `single_active_consumer`"
    );
    BrokerError::new(BrokerErrorKind::Configuration, LOCKED, message).with_source(failed.clone())
}

/// Tells whether a queue or its consumer belongs to another connection, which may be the one that was lost.
pub(crate) fn is_locked(failed: &BrokerError) -> bool {
    failed.error_type() == LOCKED
}

#[cfg(test)]
mod tests {
    use lapin::ErrorKind;
    use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError};

    use super::*;

    fn reply(kind: impl Into<AMQPErrorKind>, text: &str) -> lapin::Error {
        ErrorKind::ProtocolError(AMQPError::new(kind.into(), text.into())).into()
    }

    fn says(kind: impl Into<AMQPErrorKind>, text: &str, parts: &[&str]) -> BrokerError {
        let failed = refused(&reply(kind, text), "declare queue `q`");
        for part in parts {
            assert!(failed.to_string().contains(part), "{part} in {failed}");
        }
        failed
    }

    #[test]
    fn a_mismatch_says_both_values_and_the_ways_out() {
        let text = "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received '6' but current is '5'";
        let parts = [
            "`q`",
            "`x-max-length` is `5` on the server and `6` here",
            "delete it",
            "policy",
            "`passive`",
            "`no_declare`",
        ];
        let failed = says(AMQPSoftError::PRECONDITIONFAILED, text, &parts);
        assert_eq!((failed.kind(), failed.error_type()), (BrokerErrorKind::Configuration, "precondition-failed"));
        let cut = "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'qqqq";
        says(AMQPSoftError::PRECONDITIONFAILED, cut, &["'x-max-length'", "`passive`"]);
    }

    #[test]
    fn what_a_kind_does_not_have_is_named() {
        let text = "PRECONDITION_FAILED - invalid arg 'x-max-age' for queue 'q' in vhost '/' of queue type rabbit_classic_queue";
        says(AMQPSoftError::PRECONDITIONFAILED, text, &["a classic queue has no `x-max-age`"]);
        let old = "COMMAND_INVALID - unknown exchange type 'x-nonsense'";
        let failed = says(AMQPHardError::COMMANDINVALID, old, &["x-nonsense", "rabbitmq-plugins enable"]);
        assert_eq!(failed.kind(), BrokerErrorKind::Configuration);
        says(
            AMQPSoftError::PRECONDITIONFAILED,
            "PRECONDITION_FAILED - unknown exchange type 'x'",
            &["rabbitmq-plugins"],
        );
    }

    #[test]
    fn each_refusal_has_its_kind_and_says_what_to_do() {
        let failed =
            says(AMQPSoftError::NOTFOUND, "NOT_FOUND - no exchange 'e' in vhost '/'", &["'e'", "declare it before"]);
        assert_eq!(failed.kind(), BrokerErrorKind::NotFound);
        let failed = says(AMQPSoftError::ACCESSREFUSED, "ACCESS_REFUSED - access to queue 'q'", &["set_permissions"]);
        assert_eq!(failed.kind(), BrokerErrorKind::Unauthorized);
        let failed = says(AMQPSoftError::RESOURCELOCKED, "RESOURCE_LOCKED - cannot obtain", &["`exclusive`"]);
        assert!(is_locked(&failed));
        let denied = "INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated.";
        says(AMQPHardError::INTERNALERROR, denied, &["transient shared queues"]);
    }

    #[test]
    fn a_consumer_that_is_kept_out_waits_as_for_a_locked_queue() {
        let text = "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use";
        let failed = consume_error(&reply(AMQPSoftError::ACCESSREFUSED, text), &Queue::new("q"), "q");
        assert!(is_locked(&failed) && failed.to_string().contains("`single_active_consumer`"), "{failed}");
        let no_right = "ACCESS_REFUSED - read access to queue 'q' in vhost '/' refused for user 'u'";
        let failed = consume_error(&reply(AMQPSoftError::ACCESSREFUSED, no_right), &Queue::new("q"), "q");
        assert_eq!(failed.kind(), BrokerErrorKind::Unauthorized);
    }
}
