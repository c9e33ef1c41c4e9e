use std::collections::BTreeMap;

use async_trait::async_trait;
use opentelemetry::propagation::TextMapCompositePropagator;
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use throughline_core::Headers;
use throughline_core::broker::Subscription;
use throughline_core::message::Operations;
use throughline_core::telemetry::{BaggagePolicy, Trust};
use throughline_memory::{Channel, Memory};

use super::outgoing::Case;
use super::*;
use crate::conformance::{Capabilities, Harness, Names, Spec};

/// FNV-1a, so that the value is the same on every platform and with every compiler.
fn fingerprint(sets: &[HeaderSet]) -> u64 {
    let headers = sets.iter().flat_map(|set| &set.headers);
    let bytes = headers.flat_map(|(name, value)| [name, &vec![0xfe], value, &vec![0xff]].map(|part| part.clone()));
    bytes.flatten().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn the_sets_are_the_same_on_every_machine() {
    assert_eq!(fingerprint(&generated::sets(SEED, GENERATED)), 1_925_147_303_155_754_443);
}

#[test]
fn every_class_has_sets_of_both_kinds() {
    let count = |sets: &[HeaderSet]| {
        let mut counts = BTreeMap::new();
        sets.iter().for_each(|set| *counts.entry(set.class).or_insert(0) += 1);
        counts
    };
    let generated = count(&generated::sets(SEED, GENERATED));
    assert!(
        HostileClass::ALL.iter().all(|class| generated.get(class).is_some_and(|count| *count >= 500)),
        "{generated:?}"
    );
    let written = count(&written::sets());
    let without = HostileClass::ALL.iter().filter(|class| !written.contains_key(class)).collect::<Vec<_>>();
    assert_eq!(without, [&HostileClass::Arbitrary]);
}

struct InMemory(Memory);

#[async_trait]
impl Harness for InMemory {
    type Broker = Memory;

    const CAPABILITIES: Capabilities = Capabilities { persistence: false, ..Capabilities::all(8 << 20) };

    async fn start(_id: &str) -> Self {
        Self(Memory::new())
    }

    async fn connect(&self) -> Memory {
        self.0.clone()
    }

    fn subscription(&self, spec: &Spec) -> Subscription {
        Channel::new(spec.destination.as_str()).into()
    }

    fn names(&self) -> Names {
        Names::new("in_memory", Operations::DEFAULT.with_ack("ack"))
    }
}

#[async_trait]
impl Strangers for InMemory {
    async fn stranger(&self) -> Box<dyn Stranger> {
        Box::new(PlainStranger::new(self).await)
    }
}

fn traced(class: HostileClass) -> HeaderSet {
    HeaderSet::new(class).with_parent(TRACE, "b7ad6b7169203331")
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";

/// The checks themselves: each wrong message fails one.
#[test]
fn a_wrong_message_is_found() {
    let good = traced(HostileClass::Arbitrary).with("baggage", "k=v;p,tenant=acme").with("tracestate", "a=1");
    let good = good.keeping("tenant", "acme");
    let entries = "k=v;p,tenant=acme";
    let new = "00-11111111111111111111111111111111-00f067aa0ba902b7-01";
    let over = format!("tenant=acme,k={}", "v".repeat(8_192));
    for (headers, expected) in [
        (&[("traceparent", PARENT), ("baggage", entries), ("tracestate", "a=1")][..], ""),
        (&[("traceparent", PARENT), ("baggage", "k=v,tenant=acme")], ""),
        (&[("baggage", entries)], "PROP-01"),
        (&[("traceparent", new), ("baggage", entries)], "the trace is"),
        (&[("traceparent", "00-1-1-01"), ("baggage", entries)], "breaks the grammar"),
        (&[("Traceparent", PARENT), ("baggage", entries)], "no propagation header"),
        (&[("traceparent", PARENT), ("traceparent", PARENT), ("baggage", entries)], "twice"),
        (&[("traceparent", PARENT), ("baggage", "k=v")], "is lost"),
        (&[("traceparent", PARENT), ("baggage", "tenant=acme,evil=1")], "was not sent"),
        (&[("traceparent", PARENT), ("baggage", "tenant=acme,k=w")], "was not sent"),
        (&[("traceparent", PARENT), ("baggage", "tenant=acme,k=v;q")], "was not sent"),
        (&[("traceparent", PARENT), ("baggage", "tenant=acme,k=100%")], "breaks the grammar"),
        (&[("traceparent", PARENT), ("baggage", "tenant=acme\r\n")], "not printable ASCII"),
        (&[("traceparent", PARENT), ("baggage", &over)], "breaks the grammar"),
        (&[("traceparent", PARENT), ("baggage", entries), ("tracestate", "a=1,b=2")], "was not sent"),
        (&[("traceparent", PARENT), ("baggage", entries), ("x-note", MARKER)], "is passed on"),
    ] {
        let headers: Headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let trial = Trial::trusting();
        let found = Case::new(&good, Given::AsItIs, &trial).check_own(&headers).err().unwrap_or_default();
        assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{headers:?}: {found}");
    }
}

/// The checks of a service that does not trust: what would be right elsewhere is wrong here.
#[test]
fn what_is_not_allowed_is_found() {
    let set = traced(HostileClass::Arbitrary).with("baggage", "k=v,tenant=acme");
    let headers: Headers = [("traceparent", PARENT), ("baggage", "k=v")].into_iter().collect();
    let without: Headers = [("traceparent", PARENT)].into_iter().collect();
    let only = BaggagePolicy::only(["tenant"]);
    for (trial, headers) in [
        (Trial::trusting().with_inbound(only.clone()), &headers),
        (Trial::trusting().with_outbound(only), &headers),
        (Trial::trusting().with_trust(Trust::Link), &headers),
        (Trial::trusting().with_trust(Trust::Ignore), &without),
    ] {
        assert!(Case::new(&set, Given::AsItIs, &trial).check_own(headers).is_err(), "{trial:?}");
    }
}

/// The suite as a whole: propagators that let something through fail it.
mod sensitivity {
    use opentelemetry::Context;
    use opentelemetry::propagation::text_map_propagator::FieldIter;
    use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};

    use super::*;

    async fn tried(set: HeaderSet, propagator: fn() -> TextMapCompositePropagator) {
        run::<InMemory>(&[set], Trial::trusting().with_propagator(propagator)).await;
    }

    fn of_the_sdk() -> TextMapCompositePropagator {
        let (trace, baggage) = (TraceContextPropagator::new(), BaggagePropagator::new());
        TextMapCompositePropagator::new(vec![Box::new(trace), Box::new(baggage)])
    }

    // BAGG-16: the SDK's baggage lets a property become an entry.
    #[tokio::test]
    #[should_panic(expected = "was not sent")]
    async fn an_entry_that_was_not_sent_fails() {
        tried(traced(HostileClass::BaggageSmuggling).with("baggage", "k=v;p=%2Cevil%3D1"), of_the_sdk).await;
    }

    // PROP-09: the SDK's trace context follows a trailing dash.
    #[tokio::test]
    #[should_panic(expected = "PROP-08")]
    async fn a_malformed_parent_that_is_followed_fails() {
        let set = HeaderSet::new(HostileClass::TraceparentMalformed).with("traceparent", format!("{PARENT}-"));
        tried(set, of_the_sdk).await;
    }

    // BAGG-14.
    #[tokio::test]
    #[should_panic(expected = "BAGG-14: logged")]
    async fn what_is_logged_fails() {
        let talkative = || {
            let ours = throughline_core::propagation::BaggagePropagator::new();
            let formats: [Box<dyn TextMapPropagator + Send + Sync>; 3] =
                [Box::new(Talkative), Box::new(TraceContextPropagator::new()), Box::new(ours)];
            TextMapCompositePropagator::new(formats.into())
        };
        tried(traced(HostileClass::WellFormed).with("baggage", MARKER), talkative).await;
    }

    #[derive(Debug)]
    struct Talkative;

    impl TextMapPropagator for Talkative {
        fn inject_context(&self, _: &Context, _: &mut dyn Injector) {}

        fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
            tracing::trace!(baggage = extractor.get("baggage"), "read");
            cx.clone()
        }

        fn fields(&self) -> FieldIter<'_> {
            FieldIter::new(&[])
        }
    }
}
