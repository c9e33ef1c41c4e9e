/// What differs between a declaration and what is on the server.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Mismatch<'a> {
    pub(super) argument: &'a str,
    pub(super) ours: String,
    pub(super) theirs: String,
}

impl<'a> Mismatch<'a> {
    /// Reads the text of the server, such as `inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received the value '5' of type
    /// 'long' but current is none`.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let (_, rest) = text.split_once("inequivalent arg '")?;
        let (argument, rest) = rest.split_once('\'')?;
        let (_, rest) = rest.rsplit_once(": received ")?;
        let (ours, theirs) = rest.split_once(" but current is ")?;
        Some(Self { argument, ours: value(argument, ours)?, theirs: value(argument, theirs)? })
    }
}

/// Returns a value as the text has it, without what is around it; `None` where it is cut.
fn value(argument: &str, text: &str) -> Option<String> {
    if text == "none" {
        // What older servers say of a queue whose declaration says nothing of its kind.
        return Some(if argument == "x-queue-type" { "`classic`" } else { "not set" }.to_owned());
    }
    let text = text.strip_prefix("the value ").unwrap_or(text);
    let text = text.rsplit_once(" of type '").map_or(text, |(value, _)| value);
    let value = text.strip_prefix('\'')?.strip_suffix('\'')?;
    Some(format!("`{value}`"))
}

/// An argument that a kind of queue does not have.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Unfit<'a> {
    pub(super) argument: &'a str,
    pub(super) kind: &'a str,
}

impl<'a> Unfit<'a> {
    /// Reads the text of the server, such as `invalid arg 'x-max-length' for queue 'q' in vhost '/' of queue type rabbit_stream_queue`.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let (_, rest) = text.split_once("invalid arg '")?;
        let (argument, rest) = rest.split_once('\'')?;
        let (_, kind) = rest.rsplit_once(" of queue type rabbit_")?;
        Some(Self { argument, kind: kind.strip_suffix("_queue")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rest: &str) -> Option<[String; 3]> {
        let text = format!("406 PRECONDITION_FAILED - inequivalent arg '{rest}");
        Mismatch::read(&text).map(|found| [found.argument.to_owned(), found.ours, found.theirs])
    }

    fn is(rest: &str, expected: [&str; 3]) {
        assert_eq!(read(rest).expect(rest), expected, "{rest}");
    }

    // The texts of RabbitMQ 4.0.5 and 3.10.8.
    #[test]
    fn a_mismatch_names_argument_and_both_values() {
        let place = "for queue 'q' in vhost '/'";
        let long = "the value '5' of type 'long'";
        is(&format!("x-max-length' {place}: received {long} but current is none"), ["x-max-length", "`5`", "not set"]);
        is(&format!("x-max-length' {place}: received none but current is {long}"), ["x-max-length", "not set", "`5`"]);
        is(
            &format!("auto_delete' {place}: received 'true' but current is 'false'"),
            ["auto_delete", "`true`", "`false`"],
        );
        is(
            &format!("x-dead-letter-exchange' {place}: received 'b'c' but current is 'a'"),
            ["x-dead-letter-exchange", "`b'c`", "`a`"],
        );
        is(
            "type' for exchange 'e' in vhost '/': received 'topic' but current is 'direct'",
            ["type", "`topic`", "`direct`"],
        );
    }

    #[test]
    fn a_queue_of_another_kind_reads_the_same_on_old_servers() {
        let place = "x-queue-type' for queue 'q' in vhost '/'";
        let kinds = ["x-queue-type", "`quorum`", "`classic`"];
        is(&format!("{place}: received 'quorum' but current is 'classic'"), kinds);
        is(&format!("{place}: received the value 'quorum' of type 'longstr' but current is none"), kinds);
    }

    #[test]
    fn a_text_that_is_cut_or_another_is_no_mismatch() {
        assert_eq!(read("x-max-length' for queue 'q' in vhost '/': received '50' but current is '4"), None);
        assert_eq!(read("x-max-length' for queue 'qqq"), None);
        assert_eq!(Mismatch::read("406 PRECONDITION_FAILED - unknown delivery tag 5"), None);
        let unfit = "invalid arg 'x-max-length' for queue 'q' in vhost '/' of queue type rabbit_stream_queue";
        assert_eq!(Unfit::read(unfit), Some(Unfit { argument: "x-max-length", kind: "stream" }));
        assert_eq!(Unfit::read("invalid arg 'x-expires' for queue 'q' in vhost '/': {value_zero,0}"), None);
    }
}
