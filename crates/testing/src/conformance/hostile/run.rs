use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use opentelemetry::trace::{SpanKind, Status};
use throughline_core::extract::Baggage;
use throughline_core::message::header_text;
use throughline_core::serve::Running;
use throughline_core::telemetry::SettleSpans;
use throughline_core::{App, CurrentBaggage, Delivery, Destination, Envelope, Handler, Headers, Publisher, serve};
use tokio::time::timeout;

use super::outgoing::{Case, PassedOn};
use super::set::{HeaderSet, MARKER};
use super::stranger::{Given, Stranger};
use super::tally::Tally;
use super::trial::Trial;
use crate::attribute;
use crate::conformance::Harness;
use crate::conformance::bench::{Bench, Reader, body_of, chain, started, stopped};
use crate::conformance::wait::{PATIENCE, Seen};

/// How many handlers run at a time.
const CONCURRENCY: usize = 8;

/// How long nothing may come out while something is missing.
const SILENCE: Duration = Duration::from_secs(10);

/// What a handler noted of one message.
#[derive(Clone, Debug)]
struct Note {
    id: String,
    keys: Vec<String>,
    failed: Option<String>,
}

/// A service under test: what strangers send goes in on one side, what its handler publishes comes out on the other.
pub(super) struct Run {
    trial: Trial,
    running: Running,
    seen: Seen<Note>,
    inlet: String,
    outlet: Reader,
}

impl Run {
    pub(super) async fn start<H: Harness>(bench: &Bench<H>, trial: Trial) -> Self {
        let outlet = bench.read("out").await;
        let spec = bench.spec("in");
        let (seen, to) = (Seen::new(), bench.name("out"));
        let noted = seen.clone();
        let handle = move |delivery: Delivery, baggage: Baggage, publisher: Publisher| {
            let (noted, to) = (noted.clone(), to.clone());
            async move {
                let failed = forward::<H>(&delivery, &publisher, &to).await.err().map(|error| chain(&error));
                let keys = baggage.get_all().into_keys().collect();
                noted.add(Note { id: body_of(&delivery), keys, failed });
            }
        };
        let engine = bench.engine_with(|settings| trial.apply(settings.settle_spans(SettleSpans::Always)));
        let route = Handler::<(Delivery, Baggage, Publisher), ()>::concurrency(handle, CONCURRENCY);
        let app = App::new().subscribe(bench.harness.subscription(&spec), route);
        let app = app.telemetry(engine);
        let running = started(serve(bench.connect().await, app)).await;
        Self { trial, running, seen, inlet: spec.destination, outlet }
    }

    /// Sends some sets, waits for what comes out, and checks it.
    pub(super) async fn chunk<H: Harness>(
        &mut self,
        bench: &Bench<H>,
        stranger: &dyn Stranger,
        first: usize,
        sets: &[HeaderSet],
        tally: &mut Tally,
    ) {
        let mut sent = BTreeMap::new();
        for (index, set) in sets.iter().enumerate() {
            let id = format!("{}", first + index);
            let given = stranger.send(&self.inlet, set, id.clone().into()).await;
            tally.sent(set.class, given);
            if matches!(given, Given::AsItIs | Given::ByHand) {
                sent.insert(id, (set, given));
            }
        }
        let before = tally.totals().1;
        let mut outgoing = BTreeMap::new();
        while outgoing.len() < 2 * sent.len() {
            let Ok(message) = timeout(SILENCE, self.outlet.next()).await else {
                panic!("nothing more came out: {}", self.missing(&sent, &outgoing));
            };
            let twice = outgoing.insert(body_of(&message), message.headers().clone());
            assert!(twice.is_none(), "the handler ran twice for {}", body_of(&message));
        }
        self.handled_once(before, &sent.keys().map(String::as_str).collect()).await;
        for (id, (set, given)) in &sent {
            let case = Case::new(set, *given, &self.trial);
            let passed_on = check(id, &case, &outgoing, stranger)
                .unwrap_or_else(|why| panic!("set {id}, {}: {why}\nthe set: {}", set.class, shown(set)));
            tally.handled(set.class, case.entries(), &passed_on);
        }
        spans_are_there(bench, sent.len()).await;
    }

    /// Says which sets are missing on the other side, and what their handlers noted.
    fn missing(&self, sent: &BTreeMap<String, (&HeaderSet, Given)>, outgoing: &BTreeMap<String, Headers>) -> String {
        let notes = self.seen.all();
        let is_missing =
            |id: &&String| ["own", "copy"].iter().any(|what| !outgoing.contains_key(&format!("{id}:{what}")));
        let describe = |id: &String| {
            let (set, given) = sent[id];
            let note = notes.iter().find(|note| note.id == *id);
            format!("\n{id}, {}, {given:?}, {note:?}{}", set.class, shown(set))
        };
        sent.keys().filter(is_missing).take(5).map(describe).collect()
    }

    /// Every message was handled, and none twice, counted by the id in its body.
    async fn handled_once(&self, before: usize, ids: &BTreeSet<&str>) {
        let notes = self.seen.count(before + ids.len()).await;
        let handled: BTreeSet<&str> = notes[before..].iter().map(|note| note.id.as_str()).collect();
        assert_eq!((notes.len(), &handled), (before + ids.len(), ids));
        for note in &notes[before..] {
            assert_eq!(note.failed, None, "the handler of {} could not publish", note.id);
            let hidden = note.keys.iter().find(|key| !self.trial.shows(key));
            assert_eq!(hidden, None, "BAGG-15, PROP-22: the handler of {} saw an entry it may not see", note.id);
        }
    }

    /// Neither logs nor attributes have anything of the strangers'. Ids are theirs to choose.
    // BAGG-13, BAGG-14.
    pub(super) fn nothing_leaked<H: Harness>(&self, bench: &Bench<H>, logged: &str) {
        let line = logged.lines().find(|line| line.contains(MARKER));
        assert_eq!(line, None, "BAGG-14: logged");
        let record = bench.capture.logs().into_iter().find(|record| format!("{record:?}").contains(MARKER));
        assert!(record.is_none(), "BAGG-14: exported as a log record: {record:?}");
        let ids = ["messaging.message.id", "messaging.message.conversation_id"];
        for span in bench.capture.spans() {
            let links = span.links.iter().flat_map(|link| &link.attributes);
            let events = span.events.iter().flat_map(|event| &event.attributes);
            let mut attributes = span.attributes.iter().chain(links).chain(events);
            let leaked = attributes.find(|it| !ids.contains(&it.key.as_str()) && it.value.as_str().contains(MARKER));
            assert_eq!(leaked, None, "BAGG-13: on the span {}", span.name);
        }
        let leaked =
            bench.capture.metrics().into_iter().find(|point| format!("{:?}", point.attributes).contains(MARKER));
        assert!(leaked.is_none(), "BAGG-13: on a metric: {leaked:?}");
    }

    pub(super) async fn stop<H: Harness>(self, bench: &Bench<H>, tally: &Tally) {
        stopped(self.running).await;
        self.outlet.close().await;
        assert_eq!(self.seen.all().len(), tally.totals().1, "something was delivered again");
        assert!(bench.capture.spans().is_empty(), "something was handled again");
    }
}

/// Checks both messages that the handler published.
fn check(
    id: &str,
    case: &Case<'_>,
    outgoing: &BTreeMap<String, Headers>,
    stranger: &dyn Stranger,
) -> Result<PassedOn, String> {
    let message = |what: &str| outgoing.get(&format!("{id}:{what}")).ok_or(format!("`{what}` did not come out"));
    let passed_on = case.check_both(message("own")?, message("copy")?)?;
    let mut names = message("copy")?.iter().map(|(name, _)| name);
    match names.find(|name| stranger.is_reserved(name)) {
        Some(name) => Err(format!("PROP-N-04: {name} was copied")),
        None => Ok(passed_on),
    }
}

/// Publishes a message of its own, and one with a copy of the headers it was given, as far as the broker takes such from an application.
async fn forward<H: Harness>(
    delivery: &Delivery,
    publisher: &Publisher,
    to: &str,
) -> Result<(), throughline_core::PublishError> {
    let id = body_of(delivery);
    let to = Destination::new(to);
    publisher.publish(to.clone(), format!("{id}:own")).await?;
    let mut copy = Envelope::new(to, format!("{id}:copy"));
    for (name, value) in delivery.headers().iter() {
        if H::CAPABILITIES.unicode_headers || header_text::is_plain(value) {
            copy.headers_mut().append(name.to_owned(), value.clone());
        }
    }
    publisher.publish_envelope(copy).await.map(drop)
}

/// Each message has a process span, two send spans and, where the broker is told, one that settles it; none has failed.
async fn spans_are_there<H: Harness>(bench: &Bench<H>, messages: usize) {
    let settles = usize::from(H::CAPABILITIES.settlement);
    let spans = bench.capture.wait_for_spans(messages * (3 + settles), PATIENCE).await;
    let of = |kind: SpanKind| spans.iter().filter(|span| span.span_kind == kind).count();
    let settled = spans.iter().filter(|span| attribute(span, "messaging.operation.type") == Some(&"settle".into()));
    assert_eq!(
        (of(SpanKind::Consumer), of(SpanKind::Producer), settled.count()),
        (messages, 2 * messages, settles * messages),
        "process, send and settle spans"
    );
    let failed = spans.iter().find(|span| span.status != Status::Unset);
    assert!(failed.is_none(), "{failed:?}");
}

/// The set as far as it is of use on a screen.
fn shown(set: &HeaderSet) -> String {
    let short = |bytes: &[u8]| bytes.iter().take(300).copied().collect::<Vec<u8>>().escape_ascii().to_string();
    let headers = set.headers.iter().take(12).map(|(name, value)| format!("\n  {}: {}", short(name), short(value)));
    headers.collect()
}
