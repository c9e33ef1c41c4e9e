//! A server that is there and says nothing: what begins can be given up, and the end keeps its one deadline.

use std::net::TcpListener;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use throughline_core::{App, Delivery, Publisher, serve};
use throughline_kafka::{Kafka, Topic};
use tokio::runtime::Builder;
use tokio::time::timeout;

use crate::server::{PATIENCE, Server};
use crate::topics::{create, unique};

/// How long the services here may take for their end.
const LIMIT: Duration = Duration::from_secs(2);

/// Generous, and below what a single question to a server that is silent takes.
const SOON: Duration = Duration::from_secs(25);

/// Runs a program of its own runtime, as `main` does, and returns whether that has ended in time after `ready` was told.
fn ends_soon<F: Future<Output = ()>>(program: impl FnOnce(mpsc::Sender<()>) -> F + Send + 'static) {
    let (ready, is_ready) = mpsc::channel();
    let (ended, has_ended) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        // Dropped last, when the runtime has ended.
        let _ended = ended;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        runtime.block_on(program(ready));
        drop(runtime);
    });
    is_ready.recv_timeout(Duration::from_secs(90)).expect("the program comes to its end");
    assert_eq!(has_ended.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected), "the program has ended");
}

#[test]
fn a_connection_that_is_given_up_does_not_hold_up_the_end_of_the_program() {
    // Takes connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
    let address = silent.local_addr().expect("its address").to_string();
    let (ready, is_ready) = mpsc::channel::<()>();
    let program = std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let given_up =
            runtime.block_on(async { timeout(Duration::from_millis(100), Kafka::connect(address)).await.is_err() });
        assert!(given_up, "nobody answers");
        drop(runtime);
        drop(ready);
    });
    // Alone, the connection would be waited for 5 s.
    let ended = is_ready.recv_timeout(Duration::from_secs(4));
    assert_eq!(ended, Err(RecvTimeoutError::Disconnected), "the program has ended");
    program.join().expect("no panic");
}

#[test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
fn a_start_that_is_given_up_does_not_hold_up_the_end_of_the_program() {
    for exactly_once in [false, true] {
        ends_soon(move |ready| async move {
            let server = Server::start("silent-start").await;
            let topic = unique("silent");
            create(&server.url(), &topic, 1).await;
            let kafka = Kafka::connect(server.url()).await.expect("a connection");
            server.freeze().await;
            let app = App::new().subscribe(subscription(&topic, exactly_once), async |_: Delivery| {});
            let started = timeout(Duration::from_millis(500), serve(kafka, app.without_telemetry()).start()).await;
            assert!(started.is_err(), "nobody answers");
            ready.send(()).expect("the test waits");
        });
    }
}

#[test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
fn the_end_of_a_service_keeps_its_deadline_although_the_server_is_silent() {
    for exactly_once in [false, true] {
        ends_soon(move |ready| async move {
            let server = Server::start("silent-end").await;
            let topic = unique("silent");
            create(&server.url(), &topic, 1).await;
            let kafka = Kafka::connect(server.url()).await.expect("a connection");
            let (sender, mut handled) = tokio::sync::mpsc::unbounded_channel();
            let out = topic.clone();
            let handle = move |delivery: Delivery, publisher: Publisher| {
                let (sender, out) = (sender.clone(), out.clone());
                async move {
                    sender.send(()).expect("the test listens");
                    if delivery.payload().as_ref() == b"hangs" {
                        // Published when nobody answers any more.
                        drop(publisher.publish(out, "x").await);
                    }
                }
            };
            let app = App::new().subscribe(subscription(&topic, exactly_once), handle).without_telemetry();
            let running = serve(kafka.clone(), app).shutdown_timeout(LIMIT).start().await.expect("the app starts");
            let publisher = kafka.publisher().without_telemetry();
            publisher.publish(topic.clone(), "first").await.expect("stored");
            timeout(PATIENCE, handled.recv()).await.expect("in time").expect("it is handled");
            publisher.publish(topic.clone(), "hangs").await.expect("stored");
            timeout(PATIENCE, handled.recv()).await.expect("in time").expect("it is handled");
            server.freeze().await;
            ready.send(()).expect("the test waits");
            running.shutdown().await.expect_err("what was handled is not committed");
        });
    }
}

fn subscription(topic: &str, exactly_once: bool) -> Topic {
    let topic = Topic::new(topic).group(unique("group"));
    if exactly_once { topic.exactly_once(unique("id")) } else { topic }
}
