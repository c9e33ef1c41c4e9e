//! A Collector that goes away while services run, and comes back or does not: each span and log record is counted once.

use std::time::{Duration, Instant};

use throughline_export::Protocol;

use crate::collector::{Collector, play_to, sum};
use crate::otlp::{records, spans};
use crate::play::unique;
use crate::span::SPANS;

/// How many spans the story has when it is told again: by then the chairs are counted.
const SPANS_AGAIN: usize = SPANS - 2;

/// How many log records it has until it is told: the start of four subscriptions, and three attempts that failed.
const RECORDS: usize = 7;

/// How long an end may take where nobody takes anything: five seconds for each signal, for three services, and some room.
const END_WITHIN: Duration = Duration::from_secs(60);

async fn counts_are_exact(protocol: Protocol) {
    let (mut collector, run) = (Collector::alone().await, unique());
    let mut play = play_to(&collector, protocol, &run).await;
    play.orders().await;
    assert!(play.flush().await);
    // A Collector that is killed takes along what it has not written.
    collector.requests(SPANS, RECORDS).await;

    collector.kill();
    play.orders().await;
    assert!(!play.flush().await, "nobody is there");

    collector.run().await;
    play.orders().await;
    let reports = play.stop().await;

    // The last span of an order may end when those of the outage are given up already.
    let (exported, dropped) = (sum(&reports, |of| of.exported_spans), sum(&reports, |of| of.dropped_spans));
    assert_eq!(exported + dropped, SPANS + 2 * SPANS_AGAIN, "{reports:?}");
    assert!(exported >= SPANS + SPANS_AGAIN && dropped > 0, "{reports:?}");
    let records_exported = sum(&reports, |of| of.exported_logs);
    assert!(records_exported > RECORDS && sum(&reports, |of| of.dropped_logs) > 0, "{reports:?}");
    let requests = collector.requests(exported, records_exported).await;
    assert_eq!((spans(&requests).len(), records(&requests).len()), (exported, records_exported));
}

#[tokio::test]
#[ignore = "needs a Collector: cargo xtask test --backends"]
async fn a_collector_that_comes_back_gets_what_follows_over_grpc() {
    counts_are_exact(Protocol::Grpc).await;
}

#[tokio::test]
#[ignore = "needs a Collector: cargo xtask test --backends"]
async fn a_collector_that_comes_back_gets_what_follows_over_http() {
    counts_are_exact(Protocol::HttpProtobuf).await;
}

#[tokio::test]
#[ignore = "needs a Collector: cargo xtask test --backends"]
async fn a_shutdown_without_the_collector_ends_in_time_and_says_what_was_lost() {
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let (mut collector, run) = (Collector::alone().await, unique());
        let mut play = play_to(&collector, protocol, &run).await;
        play.orders().await;
        assert!(play.flush().await);
        collector.requests(SPANS, RECORDS).await;
        collector.kill();
        play.orders().await;
        let begun = Instant::now();
        let reports = play.stop().await;
        assert!(begun.elapsed() < END_WITHIN, "{:?}", begun.elapsed());
        assert_eq!(sum(&reports, |of| of.exported_spans), SPANS, "{reports:?}");
        assert_eq!(sum(&reports, |of| of.dropped_spans), SPANS_AGAIN, "{reports:?}");
        assert_eq!(sum(&reports, |of| of.exported_logs), RECORDS, "{reports:?}");
        assert!(sum(&reports, |of| of.dropped_logs) > 0 && sum(&reports, |of| of.failed_metric_exports) > 0);
    }
}
