//! The metrics of the story in Prometheus: read from the pages of the services, and from that of a Collector which they are sent to.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use throughline_export::{Protocol, prometheus};

use crate::api::{get_json, until};
use crate::collector::{BUCKETS, Collector, play_to};
use crate::otlp::{each, text};
use crate::play::{Play, full, unique};
use crate::prometheus_server::{PrometheusServer, encoded};
use crate::server::{free, with};

/// The file of the guide.
const CONFIG: &str = include_str!("../../docs/src/config/prometheus.yml");

/// The guide whose panels are looked at.
const PANELS: &str = include_str!("../../docs/src/grafana.md");

/// What Prometheus shows.
struct Prometheus(PrometheusServer);

/// A series of an answer: its labels and its value.
type Series = (BTreeMap<String, String>, f64);

impl Prometheus {
    /// Starts one with the file of the guide, which reads these pages.
    async fn start(pages: &[SocketAddr]) -> Self {
        let pages: Vec<String> = pages.iter().map(|page| format!("\"{page}\"")).collect();
        let changes = [("15s", "1s".to_owned()), ("\"localhost:9464\"", pages.join(", "))];
        Self(PrometheusServer::start(&with(CONFIG, &changes), |_| {}).await)
    }

    /// Returns what the query finds, when there are as many series as this.
    async fn query(&self, query: &str, count: usize) -> Vec<Series> {
        until(query, async || {
            let path = format!("/api/v1/query?query={}", encoded(query));
            let answer = get_json(self.0.address, &path).await?;
            let series: Vec<Series> = each(&answer["data"], "result").filter_map(read).collect();
            (series.len() >= count).then_some(series)
        })
        .await
    }

    /// Returns the one value that the query finds.
    async fn value(&self, query: &str, expected: f64) {
        until(&format!("{query} is {expected}"), async || {
            let found = self.query(query, 1).await;
            let [(_, value)] = &found[..] else { panic!("not one series: {found:?}") };
            ((value - expected).abs() < f64::EPSILON).then_some(())
        })
        .await;
    }
}

fn read(series: &serde_json::Value) -> Option<Series> {
    let labels = series["metric"].as_object()?.iter().map(|(key, value)| (key.clone(), text(value))).collect();
    Some((labels, series["value"][1].as_str()?.parse().ok()?))
}

/// Asserts what the guide shows. `of_stock` is how the series of the service `stock` are known.
async fn has_the_metrics(prometheus: &Prometheus, of_stock: &str) {
    let placed = r#"messaging_destination_name="orders.placed""#;
    prometheus.value(&format!("sum(messaging_process_duration_seconds_count{{{placed}}})"), 3.0).await;
    prometheus.value(&format!("sum(messaging_client_sent_messages_total{{{placed}}})"), 3.0).await;
    let settled =
        format!(r#"sum(throughline_settled_messages_total{{{placed},throughline_settlement="dead_letter"}})"#);
    prometheus.value(&settled, 1.0).await;
    let failed = format!(r#"sum(messaging_process_duration_seconds_count{{{placed},error_type!=""}})"#);
    prometheus.value(&failed, 1.0).await;

    let buckets = format!("messaging_process_duration_seconds_bucket{{{placed},{of_stock},error_type=\"\"}}");
    let found = prometheus.query(&buckets, BUCKETS.len() + 1).await;
    let mut bounds: Vec<f64> = found.iter().map(|(labels, _)| labels["le"].parse().expect("a number")).collect();
    bounds.sort_by(f64::total_cmp);
    assert_eq!(bounds, [&BUCKETS[..], &[f64::INFINITY]].concat(), "METR-05");
}

/// Returns the queries of the panels of the guide.
fn panels() -> Vec<&'static str> {
    let (_, panels) = PANELS.split_once("## Panels").expect("the guide has panels");
    panels.lines().filter_map(|line| line.strip_prefix("| ")?.split('`').nth(1)).collect()
}

#[tokio::test]
#[ignore = "needs Prometheus: cargo xtask test --backends"]
async fn prometheus_reads_the_pages_of_the_services() {
    let (run, pages) = (unique(), ["shop", "stock", "billing"].map(|name| (name, free())));
    let mut play = Play::start(&run, |name| {
        let page = pages.iter().find(|(of, _)| full(of, &run) == name).map(|(_, page)| *page);
        let to = prometheus().address(page.expect("a service of the story")).service_name(name);
        to.attribute("service.namespace", "quickstart").build().expect("a set-up")
    })
    .await;
    play.orders().await;
    let server = Prometheus::start(&pages.map(|(_, page)| page)).await;
    let stock = pages[1].1;
    has_the_metrics(&server, &format!(r#"instance="{stock}""#)).await;
    let info = server.query(r#"target_info{service_namespace="quickstart"}"#, 3).await;
    let mut services: Vec<_> = info.iter().map(|(labels, _)| labels["service_name"].clone()).collect();
    services.sort();
    assert_eq!(services, ["billing", "shop", "stock"].map(|name| full(name, &run)));
    assert!(info.iter().all(|(labels, _)| labels["job"] == "services"), "{info:?}");
    let panels = panels();
    assert!(panels.len() >= 6, "{panels:?}");
    for panel in panels {
        server.query(panel, 1).await;
    }
    play.stop().await;
}

#[tokio::test]
#[ignore = "needs a Collector and Prometheus: cargo xtask test --backends"]
async fn prometheus_reads_what_the_services_sent_to_the_collector() {
    let (page, run) = (free(), unique());
    let collector = Collector::start(free(), page).await;
    let mut play = play_to(&collector, Protocol::HttpProtobuf, &run).await;
    play.orders().await;
    play.stop().await;
    let server = Prometheus::start(&[page]).await;
    has_the_metrics(&server, &format!(r#"service_name="{}""#, full("stock", &run))).await;
}
