//! What the unit tests share.

use std::pin::pin;
use std::task::{Context, Waker};

use throughline_core::broker::{Broker, Received, Subscriber, Subscription};
use throughline_core::{Destination, Envelope, Settlement};

use crate::Memory;

pub(crate) async fn subscribe(memory: &Memory, to: impl Into<Subscription>) -> Box<dyn Subscriber> {
    memory.subscribe(&to.into()).await.unwrap()
}

pub(crate) async fn publish(memory: &Memory, destination: impl Into<Destination>, body: &'static str) {
    memory.transport().publish(Envelope::new(destination, body)).await.unwrap();
}

pub(crate) async fn next(subscriber: &mut Box<dyn Subscriber>) -> Received {
    subscriber.receive().await.unwrap()
}

/// Receives a message, acknowledges it and returns its body.
pub(crate) async fn next_body(subscriber: &mut Box<dyn Subscriber>) -> String {
    let received = next(subscriber).await;
    let body = body(&received);
    settle(received, Settlement::Ack).await;
    body
}

pub(crate) fn body(received: &Received) -> String {
    String::from_utf8(received.delivery.payload().to_vec()).unwrap()
}

pub(crate) async fn settle(mut received: Received, settlement: Settlement) {
    received.settle(&settlement).await.unwrap();
}

/// Asserts that a subscription has no message now.
pub(crate) async fn nothing_waits(subscriber: &mut Box<dyn Subscriber>) {
    let receive = pin!(subscriber.receive());
    assert!(receive.poll(&mut Context::from_waker(Waker::noop())).is_pending(), "a message waits");
}
