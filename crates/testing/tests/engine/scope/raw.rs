//! The raw door: processing without `serve`.

use std::convert::Infallible;
use std::sync::Arc;

use opentelemetry::Context;
use opentelemetry::context::FutureExt;
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::trace::Sampler;
use throughline_core::message::{Operations, Source, System, Target};
use throughline_core::telemetry::{Incoming, Instrumentation, Outgoing, Processing};
use throughline_core::{CurrentBaggage, CurrentSpan, Headers};
use throughline_testing::{Capture, attribute};
use tokio::task::spawn;

use super::states::{AS_IT_CAME, CHANGED, Carried, State};
use crate::support::{SPAN, TRACE, TRACEPARENT};

struct Raw {
    state: State,
    capture: Capture,
    engine: Instrumentation,
}

impl Raw {
    fn new(state: State) -> Self {
        let capture = match state {
            State::AlwaysOff => Capture::with_sampler(Sampler::AlwaysOff),
            _ => Capture::new(),
        };
        let engine = match state {
            State::NoSdk | State::NoSdkNoHeaders | State::NoSdkNoHeadersFirst => Instrumentation::builder().build(),
            State::AlwaysOff | State::UnsampledParent | State::Sampled => capture.instrumentation().build(),
        };
        let raw = Self { state, capture, engine };
        if state != State::NoSdkNoHeadersFirst {
            send(&raw.engine);
            raw.capture.reset();
        }
        raw
    }

    fn arrived(&self, baggage: &str) -> Headers {
        let mut headers = Headers::new();
        if let Some(traceparent) = self.state.traceparent() {
            headers.insert("traceparent", traceparent);
            headers.insert("baggage", baggage.to_owned());
        }
        headers
    }

    fn process(&self) -> Processing {
        let source = Arc::new(Source::new(system()));
        self.engine.consumer(source).process(&Incoming::new("orders", &self.arrived(AS_IT_CAME.0)))
    }

    #[track_caller]
    fn assert_sent(&self, message: &Headers, carried: Carried) {
        let state = self.state;
        assert_eq!(message.get("baggage").unwrap_or_default(), state.carried(carried), "{state:?}");
        let found = message.get("traceparent").unwrap_or_default();
        match state {
            State::NoSdkNoHeaders | State::NoSdkNoHeadersFirst => assert_eq!(found, ""),
            State::NoSdk => assert_eq!(found, TRACEPARENT),
            State::AlwaysOff | State::UnsampledParent => {
                assert!(found.contains(TRACE) && !found.contains(SPAN) && found.ends_with("-00"), "{found}, {state:?}");
            }
            State::Sampled => {
                let tree = self.capture.tree();
                let sends = tree.find_all("publish stock");
                let send = sends.iter().find(|send| found.contains(&send.span_context.span_id().to_string())).unwrap();
                assert_eq!(tree.parent(send).map(|span| span.name.as_ref()), Some("process orders"));
            }
        }
    }
}

fn system() -> Arc<System> {
    Arc::new(System::new("raw", Operations::DEFAULT))
}

/// Sends under the current context; returns what left.
fn send(engine: &Instrumentation) -> Headers {
    let mut headers = Headers::new();
    engine.producer(system()).send(&Target::new("stock"), Outgoing::new(&mut headers)).finish(Vec::new(), None);
    headers
}

fn change(scope: &impl CurrentBaggage) {
    scope.set("warehouse", "north");
    CurrentBaggage::remove(scope, "user");
}

#[tokio::test]
async fn a_scope_asked_for_before_the_run_changes_what_is_sent_in_it() {
    for state in State::ALL {
        let raw = Raw::new(state);
        let processing = raw.process();
        let scope = processing.scope().clone();
        let engine = raw.engine.clone();
        let task = async {
            let before = send(&engine);
            change(&scope);
            scope.set_attribute("order.items", 1);
            let theirs = engine.clone();
            let in_task = spawn(async move { send(&theirs) }.with_current_context()).await.unwrap();
            scope.set_attribute("order.items", 3);
            Ok::<_, Infallible>((before, send(&engine), in_task))
        };
        let (before, after, in_task) = processing.run(task).await.unwrap();
        raw.assert_sent(&before, AS_IT_CAME);
        raw.assert_sent(&after, CHANGED);
        raw.assert_sent(&in_task, CHANGED);
        if state == State::Sampled {
            let tree = raw.capture.tree();
            let own = tree.find("process orders").attributes.iter().filter(|own| own.key.as_str() == "order.items");
            assert_eq!(own.map(|own| own.value.clone()).collect::<Vec<_>>(), [3.into()]);
        }
    }
}

#[tokio::test]
async fn changes_made_before_the_run_are_carried_too() {
    for state in State::ALL {
        let raw = Raw::new(state);
        let processing = raw.process();
        change(&processing);
        let sent = processing.run(async { Ok::<_, String>(send(&raw.engine)) }).await.unwrap();
        raw.assert_sent(&sent, CHANGED);
    }
}

#[tokio::test]
async fn a_run_whose_scope_nobody_asks_for_is_below_the_process_span() {
    for state in State::ALL {
        let raw = Raw::new(state);
        let task = async { Ok::<_, Infallible>((send(&raw.engine), Context::current().has_active_span())) };
        let sent = raw.process().run(task).await.unwrap();
        raw.assert_sent(&sent.0, AS_IT_CAME);
        assert_eq!(sent.1, state.has_headers(), "{state:?}");
    }
}

#[tokio::test]
async fn a_processing_that_is_dropped_is_cancelled_with_what_was_set() {
    for asked in [true, false] {
        for state in State::ALL {
            let raw = Raw::new(state);
            let processing = raw.process();
            let kept = asked.then(|| processing.scope().clone());
            if let Some(scope) = &kept {
                scope.set_attribute("order.items", 1);
                scope.set_attribute("order.items", 3);
            }
            drop(processing);
            if let Some(scope) = &kept {
                scope.set_attribute("order.late", true);
            }
            let spans = raw.capture.spans();
            assert_eq!(spans.len(), usize::from(state == State::Sampled), "{state:?}");
            for span in spans {
                assert_eq!(attribute(&span, "error.type"), Some(&"cancelled".into()));
                let own = span.attributes.iter().filter(|own| own.key.as_str().starts_with("order."));
                let own: Vec<_> = own.map(|own| (own.key.as_str(), own.value.clone())).collect();
                assert_eq!(own, Vec::from_iter(asked.then(|| ("order.items", 3.into()))));
            }
        }
    }
}

#[tokio::test]
async fn the_scopes_of_a_batchs_messages_keep_their_changes_to_themselves() {
    for state in State::ALL {
        let raw = Raw::new(state);
        let (one, two) = (raw.arrived("tenant=acme"), raw.arrived("tenant=globex"));
        let messages = [Incoming::new("orders", &one), Incoming::new("orders", &two)];
        let processing = raw.engine.consumer(Arc::new(Source::new(system()))).process_batch(&messages);
        let scope = processing.scope().clone();
        let work = async {
            let mut sent = Vec::new();
            for (index, message) in scope.messages().iter().enumerate() {
                let send = async {
                    message.set("seen", index.to_string());
                    send(&raw.engine)
                };
                sent.push(send.with_context(message.context().clone()).await);
            }
            sent.push(send(&raw.engine));
            Ok::<_, Infallible>(sent)
        };
        let sent = processing.run(work).await.unwrap();
        let found: Vec<_> = sent.iter().map(|sent| sent.get("baggage").unwrap_or_default()).collect();
        let expected = if state.has_headers() {
            ["seen=0,tenant=acme", "seen=1,tenant=globex", "tenant=globex"]
        } else {
            ["seen=0", "seen=1", ""]
        };
        assert_eq!(found, expected, "{state:?}");
    }
}
