//! Our service: the same handlers on every broker.

use std::collections::BTreeMap;
use std::time::Duration;

use throughline_core::broker::Subscription;
use throughline_core::extract::{Baggage, Batch, State};
use throughline_core::{App, CurrentBaggage, Delivery, Handler};
use tokio::sync::mpsc::UnboundedSender;

use crate::world::map;

/// How many messages a batch has.
pub(crate) const BATCH: usize = 3;

/// How long a batch waits for them: no test needs to.
pub(crate) const BATCH_WAIT: Duration = Duration::from_secs(30);

/// A message that arrived at one of our handlers.
#[derive(Debug, PartialEq)]
pub(crate) struct Note {
    pub(crate) place: &'static str,
    pub(crate) body: String,
    pub(crate) baggage: BTreeMap<String, String>,
}

impl Note {
    pub(crate) fn new(place: &'static str, body: &str, baggage: &[(&str, &str)]) -> Self {
        Self { place, body: body.to_owned(), baggage: map(baggage) }
    }
}

pub(crate) type Notes = UnboundedSender<Note>;

/// What we subscribe to.
pub(crate) struct Subscriptions {
    pub(crate) relay: Subscription,
    pub(crate) end: Subscription,
    pub(crate) batch: Option<Subscription>,
    pub(crate) answer: Option<Subscription>,
}

/// Returns an app whose handlers publish to `next`.
pub(crate) fn app(from: Subscriptions, next: &str) -> App<Notes> {
    let mut app = App::new().subscribe(from.relay, relay.reply_to(next.to_owned())).subscribe(from.end, end);
    if let Some(from) = from.batch {
        app = app.subscribe(from, batch.reply_to(next.to_owned()));
    }
    if let Some(from) = from.answer {
        app = app.subscribe(from, answer);
    }
    app
}

fn note(place: &'static str, body: &str, of: &impl CurrentBaggage, State(notes): &State<Notes>) {
    notes.send(Note { place, body: body.to_owned(), baggage: of.get_all() }).expect("the test waits");
}

async fn relay(body: String, baggage: Baggage, notes: State<Notes>) -> String {
    note("relay", &body, &baggage, &notes);
    baggage.set("rust", "was here");
    format!("{body} by rust")
}

async fn end(body: String, baggage: Baggage, notes: State<Notes>) {
    note("end", &body, &baggage, &notes);
}

async fn batch(batch: Batch<String>, notes: State<Notes>) {
    for message in batch {
        note("batch", message.body(), &message, &notes);
        message.run(async |body| format!("{body} by rust")).await;
    }
}

async fn answer(body: String, baggage: Baggage, notes: State<Notes>, delivery: Delivery) -> String {
    assert!(delivery.reply_to().is_some(), "a request");
    note("answer", &body, &baggage, &notes);
    format!("{body} is answered by rust")
}
