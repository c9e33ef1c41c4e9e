//! What a start looks for: a stream that takes the dead letters and the replies.

use async_nats::jetstream;
use throughline_core::broker::BrokerErrorKind;
use throughline_core::{App, BrokerError, Delivery, Handler, Route, ServeError, ServeErrorKind, serve};
use throughline_nats::{CoreSubject, Nats, Stream, StreamSubject, Subject};
use tracing::Level;

use crate::server;
use crate::streams::{connect, create, durable, of, stream};
use crate::witness::{Log, unique};

/// A connection whose plain destinations are those of core NATS.
async fn to_core() -> Nats {
    Nats::connect_with(server::url(), server::options()).await.expect("a connection to THROUGHLINE_NATS_URL")
}

async fn handle(_: Delivery) -> String {
    "done".to_owned()
}

async fn start(nats: &Nats, app: App) -> Result<(), ServeError> {
    serve(nats.clone(), app.without_telemetry()).start().await?.shutdown().await
}

fn is_missing(result: Result<(), ServeError>, parts: &[&str]) {
    let failed = result.expect_err("no stream takes it");
    assert_eq!(failed.kind(), ServeErrorKind::Configuration, "{failed}");
    let broker = failed.broker_error().map(|error| (error.kind(), error.error_type().to_owned()));
    assert_eq!(broker, Some((BrokerErrorKind::NotFound, "stream_not_found".to_owned())));
    for part in parts {
        assert!(failed.to_string().contains(part), "{part} in {failed}");
    }
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_subject_that_no_stream_takes_is_refused_with_how_to_create_one() {
    let (nats, id) = stream().await;
    let nowhere = format!("{id}-nowhere");
    let of_stream = format!("(stream `{id}`, durable `stock`)");
    let subjects = format!("`Stream::new(\"..\").subjects([\"{nowhere}\"])`");
    let on = |route: Route| App::new().subscribe(durable(&id), route);
    is_missing(start(&nats, on(handle.dead_letter(nowhere.clone()))).await, &["`dead_letter`", &of_stream, &subjects]);
    is_missing(start(&nats, on(handle.reply_to(nowhere.clone()))).await, &["`reply_to`", &of_stream, &subjects]);
    // What comes from a stream goes to one, and what is said to.
    let core = to_core().await;
    is_missing(start(&core, on(handle.dead_letter(nowhere.clone()))).await, &["`dead_letter`"]);
    let asked = App::new().subscribe(Subject::new(unique()), handle.reply_to(StreamSubject::new(nowhere.clone())));
    is_missing(start(&core, asked).await, &["`reply_to`"]);
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn what_a_stream_takes_or_needs_none_is_no_fault() {
    let (log, _guard) = Log::capture();
    let (nats, id) = stream().await;
    let route = handle.reply_to(format!("{id}.done")).dead_letter(format!("{id}.dead"));
    start(&connect().await, App::new().subscribe(durable(&id), route)).await.expect("the stream takes both");
    let route = handle.reply_to(CoreSubject::new(format!("{id}-a"))).dead_letter(CoreSubject::new(format!("{id}-b")));
    start(&nats, App::new().subscribe(durable(&id), route)).await.expect("nobody needs to listen");
    let route = handle.reply_to(format!("{id}-a")).dead_letter(format!("{id}-b"));
    let core = to_core().await;
    start(&core, App::new().subscribe(Subject::new(unique()), route)).await.expect("nobody needs to listen");
    assert!(!log.has(Level::WARN, ""), "nothing to warn of");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_stream_that_a_later_subscription_declares_is_found() {
    let (nats, id) = stream().await;
    let dead = format!("{id}-dead");
    let app = App::new()
        .subscribe(durable(&id), handle.dead_letter(dead.clone()))
        .subscribe(Stream::new(dead.clone()).subjects([dead.as_str()]).durable("reader"), async |_: Delivery| {});
    start(&nats, app).await.expect("it is declared");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_server_that_cannot_be_asked_is_a_warning() {
    let (log, _guard) = Log::capture();
    let place = unique();
    // A domain that is none: nobody answers there.
    let nats = to_core().await.with_jetstream(|client| jetstream::with_domain(client, "nowhere"));
    create(&to_core().await, of(&place, &place)).await;
    let app = App::new().subscribe(Subject::new(unique()), handle.dead_letter(StreamSubject::new(place.clone())));
    start(&nats, app).await.expect("the app starts");
    assert!(log.has(Level::WARN, "the broker does not say whether destinations exist"));
    assert!(log.has(Level::WARN, &place));
}

/// What a `main` that returns the error prints.
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn an_error_names_the_stream_and_says_each_cause_once() {
    let id = unique();
    let failed = start(&to_core().await, App::new().subscribe(durable(&id), async |_: Delivery| {})).await;
    let failed = failed.expect_err("there is no stream");
    assert_eq!(failed.broker_error().map(BrokerError::kind), Some(BrokerErrorKind::NotFound));
    let text = format!("{failed:?}");
    let start =
        format!("cannot subscribe to `{id}.orders` (stream `{id}`, durable `stock`): stream {id} does not exist: ");
    assert!(text.starts_with(&start), "{text}");
    assert_eq!((text.matches("stream not found").count(), failed.to_string()), (1, text.clone()), "{text}");
}
