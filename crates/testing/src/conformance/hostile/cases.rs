//! The trials: how a service may treat strangers, and what must then be true of everything that it sends.

use std::time::Duration;

use throughline_core::telemetry::{BaggagePolicy, Trust};
use tokio::time::timeout;

use super::dead_letters::bury;
use super::stranger::Strangers;
use super::{HeaderSet, Tally, Trial, corpus, run, small_corpus};

/// How many generated sets the smaller trials take.
const SOME: usize = 1_800;

/// How long all sets may take together; a single message has much less.
const LIMIT: Duration = Duration::from_secs(600);

async fn tried<H: Strangers>(name: &str, sets: &[HeaderSet], trial: Trial) -> Tally {
    let Ok(tally) = timeout(LIMIT, run::<H>(sets, trial)).await else { panic!("{name} did not end within {LIMIT:?}") };
    println!("{name}:\n\n{tally}");
    let (sets, handled) = tally.totals();
    assert!(handled > sets / 2, "only {handled} of {sets} sets could be tried");
    tally
}

pub async fn no_headers_of_strangers_can_hurt<H: Strangers>() {
    let tally = tried::<H>("no headers of strangers can hurt", &corpus(), Trial::trusting()).await;
    let (continued, entries) = tally.passed_on();
    assert!(continued > 0 && entries > 0, "the sets contain good headers too, and those are used");
    assert!(tally.drops_logged() > 0, "BAGG-08: the log was listened to, and says that entries were dropped");
}

pub async fn no_headers_of_strangers_can_hurt_whatever_the_formats<H: Strangers>() {
    let every = Trial::trusting().with_formats("tracecontext,baggage,b3,b3multi,jaeger");
    tried::<H>("every format", &small_corpus(SOME), every).await;
}

pub async fn every_message_of_strangers_can_become_a_dead_letter<H: Strangers>() {
    let buried = timeout(LIMIT, bury::<H>(&small_corpus(SOME))).await;
    assert!(buried.is_ok(), "not all were forwarded within {LIMIT:?}");
}

pub async fn nothing_of_a_stranger_that_is_ignored_is_passed_on<H: Strangers>() {
    let tally = tried::<H>("ignored", &small_corpus(SOME), Trial::trusting().with_trust(Trust::Ignore)).await;
    assert_eq!(tally.passed_on(), (0, 0), "PROP-22");
}

pub async fn a_stranger_that_is_only_linked_gives_neither_trace_nor_baggage<H: Strangers>() {
    let tally = tried::<H>("linked", &small_corpus(SOME), Trial::trusting().with_trust(Trust::Link)).await;
    assert_eq!(tally.passed_on(), (0, 0), "PROP-22");
}

pub async fn of_the_baggage_of_strangers_only_what_is_listed_comes_in<H: Strangers>() {
    let trial = Trial::trusting().with_inbound(BaggagePolicy::only(["tenant"]));
    let tally = tried::<H>("inbound allow-list", &small_corpus(SOME), trial).await;
    assert!(tally.passed_on().1 > 0, "BAGG-15: what is listed is passed on");
}

pub async fn of_the_baggage_of_strangers_only_what_is_listed_goes_out<H: Strangers>() {
    let trial = Trial::trusting().with_outbound(BaggagePolicy::only(["tenant"]));
    let tally = tried::<H>("outbound allow-list", &small_corpus(SOME), trial).await;
    assert!(tally.passed_on().1 > 0, "BAGG-15: what is listed is passed on");
}

/// Expands to the trials with hostile headers, one test each. The optional reason marks them as ignored.
///
/// `--nocapture` shows what became of each class of headers.
///
/// # Examples
///
/// ```
/// # mod harness {
/// # use async_trait::async_trait;
/// # use throughline_core::broker::Subscription;
/// # use throughline_core::message::Operations;
/// # use throughline_memory::{Channel, Memory};
/// # use throughline_testing::conformance::{Capabilities, Harness, Names, Spec};
/// # pub struct InMemory(Memory);
/// # #[async_trait]
/// # impl Harness for InMemory {
/// #     type Broker = Memory;
/// #     const CAPABILITIES: Capabilities = Capabilities { persistence: false, ..Capabilities::all(1 << 20) };
/// #     async fn start(_id: &str) -> Self { Self(Memory::new()) }
/// #     async fn connect(&self) -> Memory { self.0.clone() }
/// #     fn subscription(&self, spec: &Spec) -> Subscription { Channel::new(spec.destination.as_str()).into() }
/// #     fn names(&self) -> Names { Names::new("in_memory", Operations::DEFAULT.with_ack("ack")) }
/// # }
/// # }
/// # use harness::InMemory;
/// use throughline_testing::conformance::{PlainStranger, Stranger, Strangers};
///
/// #[async_trait::async_trait]
/// impl Strangers for InMemory {
///     async fn stranger(&self) -> Box<dyn Stranger> {
///         Box::new(PlainStranger::new(self).await)
///     }
/// }
///
/// mod hostile {
///     use super::InMemory;
///     throughline_testing::conformance_hostile!(InMemory);
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! conformance_hostile {
    ($harness:ty) => {
        $crate::__hostile_cases! { [] [$harness] }
    };
    ($harness:ty, ignore = $reason:literal) => {
        $crate::__hostile_cases! { [#[ignore = $reason]] [$harness] }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __hostile_cases {
    ($attributes:tt $types:tt) => {
        $crate::__hostile_case! { $attributes $types
            a_stranger_that_is_only_linked_gives_neither_trace_nor_baggage,
            every_message_of_strangers_can_become_a_dead_letter,
            no_headers_of_strangers_can_hurt,
            no_headers_of_strangers_can_hurt_whatever_the_formats,
            nothing_of_a_stranger_that_is_ignored_is_passed_on,
            of_the_baggage_of_strangers_only_what_is_listed_comes_in,
            of_the_baggage_of_strangers_only_what_is_listed_goes_out,
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __hostile_case {
    ($attributes:tt $types:tt $($name:ident,)*) => {
        $( $crate::__hostile_test! { $attributes $types $name } )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __hostile_test {
    ([$($attribute:tt)*] [$harness:ty] $name:ident) => {
        // One thread: everything that is logged is heard there.
        #[::tokio::test(flavor = "current_thread")]
        $($attribute)*
        async fn $name() {
            $crate::conformance::hostile::cases::$name::<$harness>().await;
        }
    };
}
