//! What a test has: a Collector, the telemetry of our service, a service that is not ours, and the places of both.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use serde_json::{Value, json};
use throughline_core::broker::Broker;
use throughline_core::extract::Baggage;
use throughline_core::propagation::{BaggagePropagator, Propagators, TraceContextPropagator};
use throughline_core::serve::Running;
use throughline_core::telemetry::Instrumentation;
use throughline_core::{Envelope, Publisher, serve};
use throughline_export::{Protocol, Telemetry, otlp};
use tokio::process::Command;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use crate::collector::Collector;
use crate::handlers::{Note, Subscriptions, app};
use crate::peer::{PATIENCE, Peer};
use crate::span::{Span, picture};

/// The variable that has the pictures written in place of being compared.
const WRITE: &str = "THROUGHLINE_WRITE_PICTURES";

/// What both services send their spans to, and the names that no other test has.
pub(crate) struct World {
    collector: Collector,
    telemetry: Telemetry,
    run: String,
}

/// Both services.
pub(crate) struct Services {
    world: World,
    pub(crate) language: &'static str,
    running: Running,
    pub(crate) publisher: Publisher,
    pub(crate) peer: Peer,
    notes: UnboundedReceiver<Note>,
}

impl World {
    pub(crate) async fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_micros();
        let run = format!("interop-{now:x}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let collector = Collector::start(&run).await;
        let to = otlp().endpoint(collector.endpoint()).protocol(Protocol::HttpProtobuf);
        let telemetry = to.traces_only().service_name("rust").build().expect("a set-up");
        Self { collector, telemetry, run }
    }

    /// Returns what the names of all places begin with.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    /// Returns the name of a place, such as `rust.relay`.
    pub(crate) fn name(&self, place: &str) -> String {
        format!("{}.{place}", self.run)
    }

    /// Returns where the other service sends its spans.
    pub(crate) fn endpoint(&self) -> String {
        self.collector.endpoint()
    }

    /// Starts the other service, then ours: some brokers ask at the start whether what we publish to is there.
    /// The names of its places begin with its language.
    pub(crate) async fn start(
        self,
        language: &'static str,
        peer: Command,
        broker: impl Broker,
        from: Subscriptions,
    ) -> Services {
        let peer = Peer::start(peer).await;
        let mut engine = Instrumentation::builder().tracer_provider(self.telemetry.tracer_provider());
        if language == "python" {
            let baggage = BaggagePropagator::new().plus_as_space();
            engine = engine.propagator(Propagators::none().with(TraceContextPropagator::new()).with(baggage));
        }
        let engine = engine.build();
        let (sender, notes): (UnboundedSender<Note>, _) = unbounded_channel();
        let app = app(from, &self.name(&format!("{language}.end"))).with_state(sender).telemetry(engine.clone());
        let publisher = Publisher::new(&broker).telemetry(engine);
        let running = serve(broker, app).start().await.expect("a start");
        Services { world: self, language, running, publisher, peer, notes }
    }
}

impl Services {
    /// Has the other service publish.
    pub(crate) async fn they_publish(&mut self, to: &str, bodies: &[&str], baggage: &[(&str, &str)]) {
        self.peer.does(json!({ "do": "publish", "to": to, "bodies": bodies, "baggage": map(baggage) })).await;
    }

    /// Publishes to a place of the other service as a program that is no handler.
    pub(crate) async fn we_publish(&self, to: &str, bodies: &[&'static str], baggage: &[(&str, &str)]) {
        let to = self.theirs(to);
        let publishing = async {
            match bodies {
                [body] => self.publisher.publish(to, *body).await.map(drop),
                _ => self.publisher.publish_batch(to, bodies.iter().copied()).await.map(drop),
            }
        };
        started(baggage).scope(publishing).await.expect("it is published");
    }

    /// Publishes a batch of texts that have correlation ids.
    pub(crate) async fn we_publish_with_ids(
        &self,
        to: &str,
        messages: &[(&'static str, &'static str)],
        baggage: &[(&str, &str)],
    ) {
        let to = self.theirs(to);
        let message = |(body, id): &(&'static str, &'static str)| {
            Envelope::new(to.clone(), *body).with_content_type("text/plain").with_correlation_id(*id)
        };
        let batch = Envelope::batch(to.clone(), messages.iter().map(message));
        let publishing = async { self.publisher.publish_envelope(batch).await };
        started(baggage).scope(publishing).await.expect("it is published");
    }

    fn theirs(&self, place: &str) -> String {
        self.world.name(&format!("{}.{place}", self.language))
    }

    /// Asks the other service.
    pub(crate) async fn we_request(&self, to: &str, body: &'static str, baggage: &[(&str, &str)]) -> String {
        let request = self.publisher.request::<String>(self.theirs(to), body);
        started(baggage).scope(async { request.await }).await.expect("an answer")
    }

    /// Returns the next message that arrived at one of our handlers.
    pub(crate) async fn note(&mut self) -> Note {
        timeout(PATIENCE, self.notes.recv()).await.expect("a message arrives in time").expect("our service runs")
    }

    /// Ends both services, whose spans are sent then.
    pub(crate) async fn end(self) -> World {
        let Self { world, running, peer, .. } = self;
        running.shutdown().await.expect("an orderly end");
        peer.end().await;
        let report = world.telemetry.shutdown().await.expect("an orderly end of telemetry");
        assert_eq!((report.dropped_spans, report.unfinished_spans), (0, 0));
        world
    }

    /// Ends both services, and returns what is in the Collector: all spans, with names that are the same in each run.
    async fn spans(self) -> Vec<Span> {
        let World { collector, run, .. } = self.end().await;
        let spans = collector.stop().await.into_iter();
        spans.map(|span| Span { name: without_ids(&span.name, &run), ..span }).collect()
    }

    /// Asserts that both services together have made exactly the spans of this picture, which a page of the book shows.
    pub(crate) async fn made(self, name: &str) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/interop").join(name);
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        let spans = self.spans().await;
        let picture = picture(&spans);
        if std::env::var_os(WRITE).is_some() {
            std::fs::write(&file, picture.trim_start()).expect("the picture is written");
        } else {
            assert_eq!(picture.trim_start(), expected, "{}, written anew with {WRITE}=1", file.display());
        }
        for span in spans.iter().filter(|span| span.service == "rust" && span.kind == "consumer") {
            let is_linked = span.parent.iter().all(|parent| span.links.contains(parent));
            assert!(is_linked, "the creation context is parent and link: {span:?}");
        }
    }
}

fn started(baggage: &[(&str, &str)]) -> Baggage {
    baggage.iter().fold(Baggage::new(), |all, (key, value)| all.with(*key, *value))
}

pub(crate) fn map(baggage: &[(&str, &str)]) -> BTreeMap<String, String> {
    baggage.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// FastStream has the address of an answer in the names of spans.
fn without_ids(name: &str, run: &str) -> String {
    let name = name.replace(&format!("{run}."), "");
    let (inbox, verb) = name.rsplit_once(' ').unwrap_or((&name, ""));
    for of in ["_INBOX.", "amq.rabbitmq.reply-to."] {
        if let Some((before, _)) = inbox.split_once(of) {
            return format!("{before}{of}* {verb}");
        }
    }
    name
}

/// Returns a note of the other service as it is expected.
pub(crate) fn arrived(note: &Value) -> (String, BTreeMap<String, String>) {
    let baggage = serde_json::from_value(note["baggage"].clone()).expect("its baggage");
    (note["body"].as_str().unwrap_or_default().to_owned(), baggage)
}
