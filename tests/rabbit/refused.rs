//! What the server refuses as a whole: each refusal says what to do, and nothing that is secret.
//!
//! What it refuses of queues and exchanges is in `topology.rs`, of messages in `publish.rs`.

use throughline_core::BrokerError;
use throughline_core::broker::{Broker as _, BrokerErrorKind};
use throughline_rabbit::{Queue, Rabbit, RabbitOptions};
use tokio::time::timeout;

use crate::server::{self, PATIENCE, Plain, host_and_port, unique, url};

#[track_caller]
fn says(failed: &BrokerError, kind: BrokerErrorKind, error_type: &str, parts: &[&str]) {
    let text = failed.to_string();
    for part in parts {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!((failed.kind(), failed.error_type()), (kind, error_type), "ATTR-R-14: {text}");
}

async fn refused(url: &str, options: RabbitOptions) -> BrokerError {
    let connecting = timeout(PATIENCE, Rabbit::connect_with(url, options)).await.expect("it fails at once");
    connecting.expect_err("the server refuses it")
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_wrong_password_names_the_user_and_not_the_password() {
    let (host, port) = host_and_port(&url());
    let failed = refused(&format!("amqp://guest:hunter2@{host}:{port}/%2f"), RabbitOptions::new()).await;
    says(&failed, BrokerErrorKind::Unauthorized, "access-refused", &["`guest`", "correct user and password", &host]);
    assert!(!format!("{failed:?}").contains("hunter2"), "{failed:?}");
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn an_unknown_virtual_host_says_how_to_make_it() {
    let name = unique("nowhere");
    let failed = refused(&url(), RabbitOptions::new().virtual_host(name.as_str())).await;
    let parts = [&format!("`{name}`"), "rabbitmqctl add_vhost", "set_permissions", "%2f"];
    says(&failed, BrokerErrorKind::Unauthorized, "not-allowed", &parts);
}

/// The subscriptions that have a channel go on.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn one_subscription_more_than_there_are_channels_says_so_and_leaves_the_others() {
    const CHANNELS: usize = 3;
    let limited = format!("{}?channel_max={CHANNELS}", url());
    let rabbit = Rabbit::connect_with(limited.as_str(), RabbitOptions::new()).await.expect("a connection");
    let plain = Plain::connect(&url()).await;
    let names: Vec<String> = (0..=CHANNELS).map(|_| unique("limit")).collect();
    let (mut subscribers, mut failed) = (Vec::new(), None);
    for name in &names {
        match rabbit.subscribe(&Queue::new(name.as_str()).expires(server::KEPT).into()).await {
            Ok(subscriber) => subscribers.push(subscriber),
            Err(error) => failed = Some(error),
        }
    }
    let failed = failed.expect("there are no more channels");
    let last = format!("queue `{}`", names[CHANNELS]);
    says(&failed, BrokerErrorKind::Configuration, "channel-limit", &[&last, "no channel left", "`channel_max`"]);
    assert_eq!(subscribers.len(), CHANNELS);
    for (subscriber, name) in subscribers.iter_mut().zip(&names) {
        rabbit.publisher().publish(name.clone(), "x").await.expect("published");
        let received = timeout(PATIENCE, subscriber.receive()).await.expect("a message in time").expect("a message");
        assert_eq!(received.delivery.destination(), name);
        plain.delete(name).await;
    }
}
