//! What a row of the table consists of.

use throughline_core::telemetry::{Builder, Instrumentation, ParentMode, SettleSpans};

use super::span::Span;
use super::terms::{Ref, Verb};
use crate::conformance::{Ability, DoorKind};

/// One row: what happens, and everything that is exported because of it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The id in section 11, or of the statement the row stands for.
    pub id: &'static str,
    pub(super) act: Act,
    pub(super) settings: Settings,
    /// In the order of their start, as far as they have the same name.
    pub(super) spans: &'static [Span],
    /// The creation contexts in the messages that leave, in order.
    pub(super) carried: &'static [Ref],
    /// What the framework settles without a span.
    pub(super) settled: &'static [Verb],
    pub(super) needs: &'static [Need],
}

/// What a row asks of the broker or the door.
#[derive(Clone, Copy, Debug)]
pub(super) enum Need {
    Ability(Ability),
    /// A request that nobody hears fails at once.
    UnheardRequests,
    /// A message that is refused for its body.
    BodyRefused,
    Door(DoorKind),
    Groups,
    RequestReply,
    Settlement,
    Wildcards,
}

/// What happens in a row.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// A message is published and processed.
    Through,
    /// Messages are published: one alone, or all by one call. One is supplied with P# where the list says so.
    Send { supplied: &'static [bool], batch: bool },
    /// The broker refuses a message.
    Refused,
    /// The broker refuses the second of two messages published by one call.
    PartlyRefused,
    /// A request is answered, by the suite.
    Request,
    /// Nobody listens to a request.
    NoResponders,
    /// Messages of the suite are processed.
    Process(Process),
    /// A request of the suite is processed and answered.
    Answer,
    /// The application pulls messages of the suite.
    Pull { messages: usize, batch: bool, wildcard: bool },
    /// The application pulls one message, and that fails.
    PullFails,
}

/// How messages of the suite are processed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    /// Which of them carry a context.
    pub(super) contexts: &'static [bool],
    pub(super) batch: bool,
    /// With message ids of their own and one correlation id.
    pub(super) ids: bool,
    pub(super) group: bool,
    pub(super) wildcard: bool,
    /// Each to a destination of its own.
    pub(super) spread: bool,
    pub(super) ambient: bool,
    pub(super) mode: ParentMode,
    /// The settlement fails.
    pub(super) fault: bool,
    pub(super) work: Does,
}

/// What the handler does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Does {
    /// The task that handles is dropped.
    Abandon,
    Ack,
    Bury,
    Fail,
    FailTwice,
    Hang,
    Panic,
    Publish,
    Reject,
    Retry,
    Succeed,
}

/// One message with a context, handled with success.
pub(super) const ONE: Process = Process {
    contexts: &[true],
    batch: false,
    ids: false,
    group: false,
    wildcard: false,
    spread: false,
    ambient: false,
    mode: ParentMode::Auto,
    fault: false,
    work: Does::Succeed,
};

/// The telemetry settings of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) create_spans: bool,
    pub(super) receive_spans: bool,
    pub(super) settle_spans: SettleSpans,
}

impl Row {
    pub(super) const fn new(id: &'static str, act: Act) -> Self {
        let settings = Settings { create_spans: true, receive_spans: false, settle_spans: SettleSpans::Exceptional };
        Self { id, act, settings, spans: &[], carried: &[], settled: &[], needs: &[] }
    }

    /// Returns the row with what another one expects, to test the suite itself.
    #[must_use]
    pub const fn with_spans_of(self, other: &Self) -> Self {
        self.spans(other.spans)
    }

    pub(super) const fn spans(mut self, spans: &'static [Span]) -> Self {
        self.spans = spans;
        self
    }

    pub(super) const fn carried(mut self, carried: &'static [Ref]) -> Self {
        self.carried = carried;
        self
    }

    pub(super) const fn settled(mut self, settled: &'static [Verb]) -> Self {
        self.settled = settled;
        self
    }

    pub(super) const fn settle_spans(mut self, which: SettleSpans) -> Self {
        self.settings.settle_spans = which;
        self
    }

    pub(super) const fn without_create_spans(mut self) -> Self {
        self.settings.create_spans = false;
        self
    }

    pub(super) const fn with_receive_spans(mut self) -> Self {
        self.settings.receive_spans = true;
        self
    }

    pub(super) const fn needs_also(mut self, needs: &'static [Need]) -> Self {
        self.needs = needs;
        self
    }

    pub(super) fn settings(&self, builder: Builder<Instrumentation>) -> Builder<Instrumentation> {
        let Settings { create_spans, receive_spans, settle_spans } = self.settings;
        let mode = match self.act {
            Act::Process(process) => process.mode,
            _ => ParentMode::Auto,
        };
        let builder = builder.create_spans(create_spans).receive_spans(receive_spans);
        builder.settle_spans(settle_spans).parent_mode(mode)
    }

    /// Whether the handler's own decision is what is settled.
    pub(super) const fn settles(&self) -> bool {
        matches!(self.act, Act::Process(process) if matches!(process.work, Does::Ack | Does::Reject | Does::Retry))
    }

    pub(super) const fn is_ambient(&self) -> bool {
        matches!(self.act, Act::Process(process) if process.ambient)
    }

    /// What the act asks for, and what the row says.
    pub(super) fn needs(&self) -> Vec<Need> {
        let mut needs = self.needs.to_vec();
        match self.act {
            Act::Through | Act::Refused => {}
            Act::PartlyRefused => needs.extend([Need::Ability(Ability::SendBatch), Need::BodyRefused]),
            Act::Send { supplied, batch } => {
                needs.extend(batch.then_some(Need::Ability(Ability::SendBatch)));
                needs.extend(supplied.contains(&true).then_some(Need::Ability(Ability::Supply)));
            }
            Act::NoResponders => {
                needs.extend([Need::RequestReply, Need::UnheardRequests, Need::Ability(Ability::Request)]);
            }
            Act::Request => needs.extend([Need::RequestReply, Need::Ability(Ability::Request)]),
            Act::Answer => needs.push(Need::RequestReply),
            Act::Pull { wildcard, batch, .. } => {
                needs.push(Need::Ability(if batch { Ability::PullBatch } else { Ability::Pull }));
                needs.extend(wildcard.then_some(Need::Wildcards));
            }
            Act::PullFails => needs.push(Need::Ability(Ability::Fault)),
            Act::Process(process) => {
                needs.extend(process.fault.then_some(Need::Ability(Ability::Fault)));
                needs.extend(process.batch.then_some(Need::Ability(Ability::Batch)));
                needs.extend(process.ambient.then_some(Need::Ability(Ability::Ambient)));
                needs.extend(process.wildcard.then_some(Need::Wildcards));
                needs.extend(process.group.then_some(Need::Groups));
                needs.extend(
                    matches!(process.work, Does::Reject | Does::Retry).then_some(Need::Ability(Ability::Reject)),
                );
                needs.extend(match process.work {
                    Does::Bury => Some(Need::Ability(Ability::Forward)),
                    Does::Abandon => Some(Need::Door(DoorKind::Raw)),
                    Does::Hang => Some(Need::Ability(Ability::Limit)),
                    Does::Ack | Does::Reject | Does::Retry => Some(Need::Ability(Ability::Settle)),
                    _ => None,
                });
                needs.extend(self.settles().then_some(Need::Settlement));
            }
        }
        needs
    }
}
