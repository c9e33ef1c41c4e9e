//! The story in Zipkin.

use std::collections::BTreeMap;

use serde_json::Value;
use throughline_export::zipkin;

use crate::api::{get_json, until};
use crate::otlp::text;
use crate::play::{Play, SERVICES, full, unique};
use crate::span::{SPANS, STORY, Span, has_attributes, picture, without_links};
use crate::zipkin_server::ZipkinServer;

/// What Zipkin shows.
pub(crate) struct Zipkin(ZipkinServer);

impl Zipkin {
    pub(crate) async fn start() -> Self {
        Self(ZipkinServer::start().await)
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}/api/v2/spans", self.0.address)
    }

    /// Returns the spans of a run, when there are as many as this.
    pub(crate) async fn spans(&self, run: &str, count: usize) -> Vec<Span> {
        until("Zipkin has the spans", async || {
            let mut spans = BTreeMap::new();
            for service in SERVICES {
                let path = format!("/api/v2/traces?serviceName={}&limit=1000", full(service, run));
                let traces = get_json(self.0.address, &path).await?;
                let found = traces.as_array()?.iter().flat_map(|trace| trace.as_array().into_iter().flatten());
                spans.extend(found.map(read).map(|span| (span.id.clone(), span)));
            }
            (spans.len() >= count).then(|| spans.into_values().collect())
        })
        .await
    }
}

fn read(span: &Value) -> Span {
    let tags = span["tags"].as_object().into_iter().flatten();
    let mut attributes: BTreeMap<String, String> = tags.map(|(key, value)| (key.clone(), text(value))).collect();
    Span {
        service: text(&span["localEndpoint"]["serviceName"]),
        name: text(&span["name"]),
        kind: span["kind"].as_str().unwrap_or("INTERNAL").to_lowercase(),
        trace: text(&span["traceId"]),
        id: text(&span["id"]),
        parent: span["parentId"].as_str().map(str::to_owned),
        links: Vec::new(),
        failure: attributes.remove("error"),
        attributes,
    }
}

#[tokio::test]
#[ignore = "needs Zipkin: cargo xtask test --backends"]
async fn the_story_is_in_zipkin_without_its_links() {
    let (server, run) = (Zipkin::start().await, unique());
    let mut play =
        Play::start(&run, |name| zipkin().endpoint(server.endpoint()).service_name(name).build().expect("a set-up"))
            .await;
    play.orders().await;
    for (service, report) in play.stop().await {
        assert_eq!((report.dropped_spans, report.unfinished_spans), (0, 0), "{service}: {report}");
    }
    let spans = server.spans(&run, SPANS).await;
    assert_eq!(picture(&spans), without_links(STORY));
    has_attributes(&spans);
}
