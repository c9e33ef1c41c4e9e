//! The states of telemetry a story is told in.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use opentelemetry_sdk::trace::{Sampler, SpanData};
use throughline_core::telemetry::Instrumentation;
use throughline_core::{App, Delivery, Envelope, PublishError, Publisher};
use throughline_testing::{AppTest, Capture, start, start_in, start_with};

use crate::support::{SPAN, Seen, TRACE, TRACEPARENT, ids, traceparent, untraced};

/// The baggage a message is to carry: where one arrived with `tenant=acme,user=bob`, and where none did.
pub(super) type Carried = (&'static str, &'static str);

pub(super) const AS_IT_CAME: Carried = ("tenant=acme,user=bob", "");
/// After `warehouse` was set and `user` removed.
pub(super) const CHANGED: Carried = ("tenant=acme,warehouse=north", "warehouse=north");

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// The headers are passed on.
    NoSdk,
    /// Nothing is to be done, and the framework knows it.
    NoSdkNoHeaders,
    /// Nothing is to be done, but that is found out with this message only.
    NoSdkNoHeadersFirst,
    AlwaysOff,
    UnsampledParent,
    Sampled,
}

impl State {
    pub(super) const ALL: [Self; 6] = [
        Self::NoSdk,
        Self::NoSdkNoHeaders,
        Self::NoSdkNoHeadersFirst,
        Self::AlwaysOff,
        Self::UnsampledParent,
        Self::Sampled,
    ];

    pub(super) const fn has_headers(self) -> bool {
        !matches!(self, Self::NoSdkNoHeaders | Self::NoSdkNoHeadersFirst)
    }

    pub(super) const fn carried(self, carried: Carried) -> &'static str {
        if self.has_headers() { carried.0 } else { carried.1 }
    }

    /// The parent a remote producer names.
    pub(super) fn traceparent(self) -> Option<String> {
        let flags = if self == Self::UnsampledParent { "-00" } else { "-01" };
        self.has_headers().then(|| TRACEPARENT.replace("-01", flags))
    }

    /// Serves an app in this state.
    pub(super) async fn start(self, app: App<Own>) -> World {
        self.start_with(app, Own::new()).await
    }

    /// As [`start`](Self::start), with a state that middleware holds too.
    pub(super) async fn start_with(self, app: App<Own>, own: Own) -> World {
        let app = app.with_state(own.clone());
        let test = match self {
            Self::NoSdk | Self::NoSdkNoHeaders | Self::NoSdkNoHeadersFirst => {
                start_with(app, |_| Instrumentation::builder()).await
            }
            Self::AlwaysOff => start_in(Capture::with_sampler(Sampler::AlwaysOff), app, |telemetry| telemetry).await,
            Self::UnsampledParent | Self::Sampled => start(app).await,
        };
        if self != Self::NoSdkNoHeadersFirst {
            test.publish("shown", "what shows the engine whether there is an SDK").await;
            test.settle().await;
            test.capture().reset();
        }
        own.publisher.set(test.publisher().clone()).expect("set once");
        World { state: self, test, own }
    }
}

/// The state of the apps: what they hold that was not made for one message.
#[derive(Clone)]
pub(super) struct Own {
    publisher: Arc<OnceLock<Publisher>>,
    pub(super) kept: Seen<Delivery>,
    pub(super) calls: Seen<HashMap<String, String>>,
}

impl Own {
    pub(super) fn new() -> Self {
        Self { publisher: Arc::default(), kept: Seen::new(), calls: Seen::new() }
    }

    /// Publishes with a publisher that knows nothing of the message.
    pub(super) async fn publish(&self, destination: &'static str) -> Result<(), PublishError> {
        self.publisher.get().expect("set before the first message").publish(destination, "42").await.map(drop)
    }
}

pub(super) struct World {
    pub(super) state: State,
    pub(super) test: AppTest,
    pub(super) own: Own,
}

impl World {
    /// Publishes what another service would, to `orders`.
    pub(super) async fn arrive(&self) {
        self.arrive_with("42", AS_IT_CAME.0).await;
    }

    pub(super) async fn arrive_with(&self, body: &'static str, baggage: &'static str) {
        let mut message = Envelope::new("orders", body);
        if let Some(traceparent) = self.state.traceparent() {
            message = message.with_header("traceparent", traceparent).with_header("baggage", baggage);
        }
        untraced(&self.test).publish_envelope(message).await.unwrap();
    }

    /// The next message to a destination, which is below the process span and carries this baggage.
    #[track_caller]
    pub(super) fn sent(&self, destination: &'static str, carried: Carried) -> impl Future<Output = Delivery> {
        self.sent_below("process orders", destination, self.state.carried(carried))
    }

    /// The next message to a destination, which is below the span of that name and carries this baggage.
    pub(super) async fn sent_below(&self, parent: &str, destination: &'static str, baggage: &str) -> Delivery {
        let state = self.state;
        let message = self.test.next_delivery(destination).await;
        let found = message.headers().get("baggage").unwrap_or_default();
        assert_eq!(found, baggage, "baggage of the message to `{destination}`, {state:?}");
        match state {
            State::NoSdkNoHeaders | State::NoSdkNoHeadersFirst => {
                assert!(!message.headers().contains("traceparent"), "`{destination}`, {state:?}");
            }
            State::NoSdk => assert_eq!(message.headers().get("traceparent"), Some(TRACEPARENT), "`{destination}`"),
            State::AlwaysOff | State::UnsampledParent => {
                let (trace, span) = traceparent(&message);
                let text = message.headers().get("traceparent").unwrap();
                assert!(
                    trace == TRACE && span != SPAN && text.ends_with("-00"),
                    "{text} to `{destination}`, {state:?}"
                );
            }
            State::Sampled => {
                let tree = self.test.trace().await;
                let sends = tree.find_all(&format!("publish {destination}"));
                let send = sends.into_iter().find(|send| ids(send) == traceparent(&message));
                let send = send.unwrap_or_else(|| panic!("the message to `{destination}` has another context"));
                assert_eq!(tree.parent(send).map(|span| span.name.as_ref()), Some(parent), "`{destination}`");
            }
        }
        message
    }

    /// How often an attribute of this name is on the process span, with the last value; nothing where no span is exported.
    pub(super) async fn exported(&self, key: &str) -> Option<Vec<opentelemetry::Value>> {
        self.test.settle().await;
        let spans: Vec<SpanData> = self.test.capture().spans();
        let process = spans.iter().find(|span| span.name == "process orders");
        assert_eq!(process.is_some(), self.state == State::Sampled, "{:?}", self.state);
        process.map(|span| {
            let own = span.attributes.iter().filter(|attribute| attribute.key.as_str() == key);
            own.map(|attribute| attribute.value.clone()).collect()
        })
    }

    /// An attribute was set: it is on the process span once, with this value.
    pub(super) async fn assert_exported_once(&self, key: &str, value: impl Into<opentelemetry::Value>) {
        let expected = (self.state == State::Sampled).then(|| vec![value.into()]);
        assert_eq!(self.exported(key).await, expected, "{:?}", self.state);
    }
}
