//! Section 11 of the checklist, and the statements of sections 2 to 5 that one broker alone can show.
//!
//! Rows of Kafka and RabbitMQ stand here in the form that any broker can show; what only those have is in their adapters' tests.

use opentelemetry::trace::SpanKind::{Client, Producer};
use throughline_core::telemetry::{ParentMode, SettleSpans};

use super::row::{Act, Does, Need, ONE, Process, Row};
use super::span::Span;
use super::terms::{At, Fault, P1, P2, Ref, Val, Verb};
use crate::conformance::DoorKind::{Framework, Raw};

/// Every row.
pub const ALL: [Row; 40] = [
    M01,
    K01,
    K02,
    K03,
    K04,
    K05,
    K06,
    K09,
    K10,
    N01,
    N02,
    N03,
    N04,
    J01,
    J02,
    J03_ACK,
    J03_NAK,
    J03_TERM,
    X01,
    X02,
    X03,
    X04,
    X05,
    X06,
    X07,
    X08,
    X09,
    X10,
    SPAN_26,
    SPAN_30,
    SPAN_36,
    SPAN_38,
    LINK_05,
    MODE_PARENT_ALONE,
    METR_13,
    ATTR_C_04,
    SPAN_31,
    STAT_09,
    STAT_14_RECEIVE,
    STAT_14_SETTLE,
];

type Attribute = (&'static str, Val);

/// Why there is another attempt, on its span.
const CAUSE: Attribute = ("throughline.retry.cause", Val::OwnFault);

const NAME: Attribute = ("messaging.destination.name", Val::Destination);
const TEMPLATE: Attribute = ("messaging.destination.template", Val::Template);
const COUNT: &str = "messaging.batch.message_count";
const ID: &str = "messaging.message.id";
const CONVERSATION: Attribute = ("messaging.message.conversation_id", Val::Conversation);
const REASON: Attribute = ("throughline.rejection.reason", Val::Text("out of stock"));

/// A message published and processed: the same shape on every broker.
pub const M01: Row = Row::new("GOLD-M-01", Act::Through)
    .spans(&[
        Span::send(At::Orders, Producer).attributes(&[NAME]),
        Span::process(At::Orders).parent(Ref::Of("send")).links(&[(Ref::Of("send"), &[])]).attributes(&[NAME]),
    ])
    .settled(&[Verb::Ack]);

/// A single publish.
pub const K01: Row = Row::new("GOLD-K-01", Act::Send { supplied: &[false], batch: false })
    .spans(&[Span::send(At::Orders, Producer).attributes(&[NAME])])
    .carried(&[Ref::Of("send")]);

/// A batch publish with create spans.
pub const K02: Row = Row::new("GOLD-K-02", Act::Send { supplied: &[false, false], batch: true })
    .spans(&[
        Span::create("first").attributes(&[NAME]),
        Span::create("second").attributes(&[NAME]),
        Span::send(At::Orders, Client)
            .links(&[(Ref::Of("first"), &[]), (Ref::Of("second"), &[])])
            .attributes(&[NAME, (COUNT, Val::Int(2))])
            .messages(2),
    ])
    .carried(&[Ref::Of("first"), Ref::Of("second")]);

/// The same without create spans.
pub const K03: Row = Row::new("GOLD-K-03", Act::Send { supplied: &[false, false], batch: true })
    .without_create_spans()
    .spans(&[Span::send(At::Orders, Producer).attributes(&[NAME, (COUNT, Val::Int(2))]).messages(2)])
    .carried(&[Ref::Of("send"), Ref::Of("send")]);

/// A message with ids, taken by a group.
pub const K04: Row = Row::new("GOLD-K-04", Act::Process(Process { ids: true, group: true, ..ONE }))
    .spans(&[PROCESS_ONE.attributes(&[NAME, (ID, Val::Id(1)), CONVERSATION])])
    .settled(&[Verb::Ack]);

/// A batch: what differs is on the links, what is equal on the span.
pub const K05: Row = Row::new("GOLD-K-05", Act::Process(Process { contexts: &[true, true], ids: true, ..BATCH }))
    .spans(&[Span::process(At::Orders)
        .links(&[(P1, &[(ID, Val::Id(1))]), (P2, &[(ID, Val::Id(2))])])
        .attributes(&[NAME, (COUNT, Val::Int(2)), CONVERSATION])
        .messages(2)])
    .settled(&[Verb::Ack, Verb::Ack]);

/// A settlement in the handler's process span, with settle spans always on.
pub const K06: Row = Row::new("GOLD-K-06", Act::Process(Process { group: true, work: Does::Ack, ..ONE }))
    .settle_spans(SettleSpans::Always)
    .spans(&[PROCESS_ONE.attributes(&[NAME]), Span::settle(Verb::Ack).attributes(&[NAME])]);

/// A publish that the broker refuses.
pub const K09: Row =
    Row::new("GOLD-K-09", Act::Refused).spans(&[Span::send(At::Nowhere, Producer).fails(Fault::Refused)]);

/// A batch whose second message has no context.
pub const K10: Row = Row::new("GOLD-K-10", Act::Process(Process { contexts: &[true, false], ..BATCH }))
    .spans(&[Span::process(At::Orders).links(&[(P1, &[])]).attributes(&[NAME, (COUNT, Val::Int(2))]).messages(2)])
    .settled(&[Verb::Ack, Verb::Ack]);

/// A publish to a plain destination without ids.
pub const N01: Row = Row::new("GOLD-N-01", K01.act).spans(K01.spans).carried(K01.carried);

/// A pattern is the name of the span, the concrete destination an attribute.
pub const N02: Row = Row::new("GOLD-N-02", Act::Process(Process { wildcard: true, group: true, ..ONE }))
    .spans(&[PROCESS_PATTERN])
    .settled(&[Verb::Ack]);

/// A reply to an inbox.
pub const N03: Row = Row::new("GOLD-N-03", Act::Answer)
    .spans(&[
        PROCESS_ONE.attributes(&[NAME]),
        Span::send(At::Inbox, Producer).parent(Ref::Of("process")).attributes(&[
            ("messaging.destination.name", Val::Any),
            TEMPLATE,
            ("messaging.destination.temporary", Val::True),
            ("messaging.destination.anonymous", Val::True),
        ]),
    ])
    .settled(&[Verb::Ack]);

/// A request that nobody hears.
pub const N04: Row = Row::new("GOLD-N-04", Act::NoResponders)
    .spans(&[Span::request().attributes(&[NAME]).fails(Fault::Type("no_responders"))]);

/// A subscription by a pattern, without a group.
pub const J01: Row = Row::new("GOLD-J-01", Act::Process(Process { wildcard: true, ..ONE }))
    .spans(&[PROCESS_PATTERN])
    .settled(&[Verb::Ack]);

/// The application pulls two messages.
pub const J02: Row =
    Row::new("GOLD-J-02", Act::Pull { messages: 2, batch: true, wildcard: true }).spans(&[Span::receive(At::Wildcard)
        .links(&[(P1, &[]), (P2, &[])])
        .attributes(&[NAME, TEMPLATE, (COUNT, Val::Int(2))])
        .messages(2)]);

/// An acknowledgement with settle spans always on.
pub const J03_ACK: Row = Row::new("GOLD-J-03 ack", Act::Process(Process { work: Does::Ack, ..ONE }))
    .settle_spans(SettleSpans::Always)
    .spans(&[PROCESS_ONE.attributes(&[NAME]), Span::settle(Verb::Ack).attributes(&[NAME])]);

/// A message given back, and acknowledged when it comes again: it counts again, and the plain ack has no span.
pub const J03_NAK: Row = Row::new("GOLD-J-03 nak", Act::Process(Process { work: Does::Retry, ..ONE }))
    .spans(&[
        PROCESS_ONE.attributes(&[NAME]),
        Span::settle(Verb::Retry).attributes(&[NAME, ("throughline.retry.delay", Val::Seconds(0.001))]),
        PROCESS_ONE.label("process again").attributes(&[NAME, ("throughline.attempt", Val::Int(2))]),
    ])
    .settled(&[Verb::Ack]);

/// A message refused by the handler's decision: no error.
pub const J03_TERM: Row = Row::new("GOLD-J-03 term", Act::Process(Process { work: Does::Reject, ..ONE })).spans(&[
    PROCESS_ONE.attributes(&[NAME, REASON]).only(Framework),
    PROCESS_ONE.attributes(&[NAME]).only(Raw),
    Span::settle(Verb::Reject).attributes(&[NAME]),
]);

/// Under a span that is current already, mode auto.
pub const X01: Row = Row::new("GOLD-X-01", Act::Process(Process { ambient: true, ..ONE }))
    .spans(&[PROCESS_ONE.parent(Ref::Ambient).attributes(&[NAME])])
    .settled(&[Verb::Ack]);

/// The same in mode parent.
pub const X02: Row = Row::new("GOLD-X-02", Act::Process(Process { ambient: true, mode: ParentMode::Parent, ..ONE }))
    .spans(&[PROCESS_ONE.links(&[(P1, &[]), (Ref::Ambient, &[])]).attributes(&[NAME])])
    .settled(&[Verb::Ack]);

/// Mode link only.
pub const X03: Row = Row::new("GOLD-X-03", Act::Process(Process { mode: ParentMode::LinkOnly, ..ONE }))
    .spans(&[PROCESS_ONE.parent(Ref::None).attributes(&[NAME])])
    .settled(&[Verb::Ack]);

/// A failing handler.
pub const X04: Row = Row::new("GOLD-X-04", Act::Process(Process { work: Does::Fail, ..ONE }))
    .settle_spans(SettleSpans::Never)
    .spans(&[PROCESS_ONE.attributes(&[NAME]).fails(Fault::Own)])
    .settled(&[Verb::Reject]);

/// A panicking handler.
pub const X05: Row = Row::new("GOLD-X-05", Act::Process(Process { work: Does::Panic, ..ONE }))
    .settle_spans(SettleSpans::Never)
    .spans(&[PROCESS_ONE.attributes(&[NAME]).fails(Fault::Type("panic"))])
    .settled(&[Verb::Reject]);

/// A handler that outlasts its limit.
pub const X06: Row = Row::new("GOLD-X-06", Act::Process(Process { work: Does::Hang, ..ONE }))
    .settle_spans(SettleSpans::Never)
    .spans(&[PROCESS_ONE.attributes(&[NAME]).fails(Fault::Type("timeout"))])
    .settled(&[Verb::Reject]);

/// Two failures that a retry makes good: nothing of them on the process span. The attempts are the framework's own spans.
pub const X07: Row = Row::new("GOLD-X-07", Act::Process(Process { work: Does::FailTwice, ..ONE }))
    .spans(&[
        PROCESS_ONE.attributes(&[NAME]),
        Span::attempt().attributes(&[("throughline.attempt", Val::Int(2)), CAUSE]).fails(Fault::Own),
        Span::attempt().attributes(&[("throughline.attempt", Val::Int(3)), CAUSE]),
    ])
    .settled(&[Verb::Ack]);

/// A creation context supplied by the caller.
pub const X08: Row = Row::new("GOLD-X-08", Act::Send { supplied: &[true], batch: false })
    .spans(&[Span::send(At::Orders, Client).links(&[(P1, &[])]).attributes(&[NAME])])
    .carried(&[P1]);

/// A message forwarded to a dead letter keeps its context.
pub const X09: Row = Row::new("GOLD-X-09", Act::Process(Process { work: Does::Bury, ..ONE }))
    .spans(&[
        PROCESS_ONE.attributes(&[NAME, REASON]).only(Framework),
        PROCESS_ONE.attributes(&[NAME]).only(Raw),
        Span::send(At::Dead, Client).parent(Ref::Of("process")).links(&[(P1, &[])]).attributes(&[NAME]),
    ])
    .carried(&[P1])
    .settled(&[Verb::Ack]);

/// The application pulls one message.
pub const X10: Row = Row::new("GOLD-X-10", Act::Pull { messages: 1, batch: false, wildcard: false })
    .spans(&[Span::receive(At::Orders).links(&[(P1, &[])]).attributes(&[NAME])]);

/// A batch with one supplied context: a create span for the other message only.
pub const SPAN_26: Row = Row::new("SPAN-26", Act::Send { supplied: &[true, false], batch: true })
    .spans(&[
        Span::create("second").attributes(&[NAME]),
        Span::send(At::Orders, Client)
            .links(&[(P1, &[]), (Ref::Of("second"), &[])])
            .attributes(&[NAME, (COUNT, Val::Int(2))])
            .messages(2),
    ])
    .carried(&[P1, Ref::Of("second")]);

/// The framework's own poll, with receive spans switched on.
// METR-14.
pub const SPAN_30: Row = Row::new("SPAN-30", Act::Process(ONE))
    .with_receive_spans()
    .spans(&[Span::receive(At::Orders).links(&[(P1, &[])]).attributes(&[NAME]), PROCESS_ONE.attributes(&[NAME])])
    .settled(&[Verb::Ack])
    .needs_also(&[Need::Door(Framework)]);

/// A request that is answered.
pub const SPAN_36: Row = Row::new("SPAN-36", Act::Request).spans(&[Span::request().attributes(&[NAME])]);

/// A new message of the handler: its own context, below the process span.
pub const SPAN_38: Row = Row::new("SPAN-38", Act::Process(Process { work: Does::Publish, ..ONE }))
    .spans(&[
        PROCESS_ONE.attributes(&[NAME]),
        Span::send(At::Dead, Producer).parent(Ref::Of("process")).attributes(&[NAME]),
    ])
    .carried(&[Ref::Of("send")])
    .settled(&[Verb::Ack]);

/// A batch under a span that is current already, also in mode parent: never below a message.
pub const LINK_05: Row =
    Row::new("LINK-05", Act::Process(Process { ambient: true, mode: ParentMode::Parent, ..BATCH }))
        .spans(&[Span::process(At::Orders)
            .parent(Ref::Ambient)
            .links(&[(P1, &[])])
            .attributes(&[NAME, (COUNT, Val::Int(1))])])
        .settled(&[Verb::Ack]);

/// Mode parent without a span that is current.
pub const MODE_PARENT_ALONE: Row = Row::new("LINK-09 alone", Act::Process(Process { mode: ParentMode::Parent, ..ONE }))
    .spans(&[PROCESS_ONE.attributes(&[NAME])])
    .settled(&[Verb::Ack]);

/// A batch of which one message is refused: each message is counted as what became of it.
pub const METR_13: Row = Row::new("METR-13", Act::PartlyRefused).spans(&[
    Span::create("first").attributes(&[NAME]),
    Span::create("second").attributes(&[NAME]),
    Span::send(At::Orders, Client)
        .links(&[(Ref::Of("first"), &[]), (Ref::Of("second"), &[])])
        .attributes(&[NAME, (COUNT, Val::Int(2))])
        .fails(Fault::Refused)
        .messages(2)
        .sent(1),
]);

/// A batch from several destinations: none of them is on the span, each is on its link.
pub const ATTR_C_04: Row =
    Row::new("ATTR-C-04", Act::Process(Process { contexts: &[true, true], wildcard: true, spread: true, ..BATCH }))
        .spans(&[Span::process(At::Wildcard)
            .links(&[
                (P1, &[("messaging.destination.name", Val::DestinationOf(0))]),
                (P2, &[("messaging.destination.name", Val::DestinationOf(1))]),
            ])
            .attributes(&[TEMPLATE, (COUNT, Val::Int(2))])
            .messages(2)])
        .settled(&[Verb::Ack, Verb::Ack]);

/// The application pulls and gets nothing.
pub const SPAN_31: Row = Row::new("SPAN-31", Act::Pull { messages: 0, batch: true, wildcard: false })
    .spans(&[Span::receive(At::Orders).attributes(&[NAME, (COUNT, Val::Int(0))]).messages(0)]);

/// A task that is dropped while it handles.
pub const STAT_09: Row = Row::new("STAT-09", Act::Process(Process { work: Does::Abandon, ..ONE }))
    .spans(&[PROCESS_ONE.attributes(&[NAME]).fails(Fault::Type("cancelled"))]);

/// A pull of one message that fails: it counts no messages.
pub const STAT_14_RECEIVE: Row = Row::new("STAT-14 receive", Act::PullFails)
    .spans(&[Span::receive(At::Orders).attributes(&[NAME]).fails(Fault::Type("timeout")).messages(0)]);

/// A settlement that fails: it has a span also where a plain ack has none.
pub const STAT_14_SETTLE: Row =
    Row::new("STAT-14 settle", Act::Process(Process { work: Does::Ack, fault: true, ..ONE })).spans(&[
        PROCESS_ONE.attributes(&[NAME]),
        Span::settle(Verb::Ack).attributes(&[NAME]).fails(Fault::Type("timeout")),
    ]);

const BATCH: Process = Process { batch: true, ..ONE };

const PROCESS_ONE: Span = Span::process(At::Orders).parent(P1).links(&[(P1, &[])]);

const PROCESS_PATTERN: Span = Span::process(At::Wildcard).parent(P1).links(&[(P1, &[])]).attributes(&[NAME, TEMPLATE]);
