//! The words that rows and spans of the golden table are written in.

pub(super) type Link = (Ref, &'static [(&'static str, Val)]);

/// The operation, in the words of the contract; the harness knows those of the system.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verb {
    Ack,
    /// One further attempt inside a process span, the framework's own.
    Attempt,
    Create,
    Process,
    Receive,
    Reject,
    Request,
    Retry,
    Send,
}

/// The destination in a span's name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum At {
    /// No destination at all.
    Absent,
    Dead,
    Inbox,
    /// Where the broker refuses; it is left out of the name when the destination is the reason.
    Nowhere,
    Orders,
    Wildcard,
}

/// A span context.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ref {
    Ambient,
    /// P#, counted from 1: made by the suite, and in the message's headers.
    Given(usize),
    None,
    /// Of the span with this label.
    Of(&'static str),
}

pub(super) const P1: Ref = Ref::Given(1);
pub(super) const P2: Ref = Ref::Given(2);

/// The value of an attribute.
#[derive(Clone, Copy, Debug)]
pub(super) enum Val {
    /// Some value: it is random.
    Any,
    /// The correlation id of the case.
    Conversation,
    /// The name of the span's destination.
    Destination,
    /// The destination of message #, where each has its own.
    DestinationOf(usize),
    /// The id of message #.
    Id(usize),
    Int(i64),
    /// The `error.type` of the error that the handler returns.
    OwnFault,
    Seconds(f64),
    /// What the destination is called in telemetry.
    Template,
    Text(&'static str),
    True,
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// The handler's own error: its type, and no description.
    Own,
    /// The harness knows.
    Refused,
    Type(&'static str),
}

impl Verb {
    pub(super) const fn is_consumer(self) -> bool {
        matches!(self, Self::Ack | Self::Process | Self::Receive | Self::Reject | Self::Retry)
    }

    /// `messaging.operation.type`.
    // SPAN-01 to -06.
    pub(super) const fn operation_type(self) -> &'static str {
        match self {
            Self::Ack | Self::Reject | Self::Retry => "settle",
            Self::Attempt | Self::Process => "process",
            Self::Create => "create",
            Self::Receive => "receive",
            Self::Request | Self::Send => "send",
        }
    }
}
