//! The story in Jaeger, over each protocol of OTLP.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;
use throughline_export::{Protocol, otlp};

use crate::api::{get_json, until};
use crate::otlp::{each, text};
use crate::play::{Play, SERVICES, full, unique};
use crate::server::{Server, free, named, program, with};
use crate::span::{SPANS, STORY, Span, has_attributes, picture};

/// The file of the guide.
const CONFIG: &str = include_str!("../../docs/src/config/jaeger.yaml");

/// A Jaeger that is ready: the one that is named, else one of the test.
pub(crate) struct Jaeger {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    query: SocketAddr,
    server: Option<Server>,
}

impl Jaeger {
    pub(crate) async fn start() -> Self {
        let mut jaeger = named("THROUGHLINE_JAEGER_URL").map_or_else(Self::run, Self::at);
        let Self { grpc, http, query, server } = &mut jaeger;
        until("Jaeger is ready", async || {
            server.iter_mut().for_each(Server::is_alive);
            get_json(*query, "/api/services").await?;
            tokio::net::TcpStream::connect(*http).await.ok()?;
            tokio::net::TcpStream::connect(*grpc).await.ok()
        })
        .await;
        jaeger
    }

    /// OTLP is on the ports that are its custom.
    fn at(query: SocketAddr) -> Self {
        let [grpc, http] = [4317, 4318].map(|port| SocketAddr::new(query.ip(), port));
        Self { grpc, http, query, server: None }
    }

    /// Starts one with the file of the guide.
    fn run() -> Self {
        let [grpc, http, query, query_grpc] = [(); 4].map(|()| free());
        let changes = [
            ("localhost:4317", grpc.to_string()),
            ("localhost:4318", http.to_string()),
            ("localhost:16686", query.to_string()),
            ("localhost:16685", query_grpc.to_string()),
        ];
        let mut server = Server::new("jaeger", program("THROUGHLINE_JAEGER_SERVER"), |folder| {
            let file = folder.join("jaeger.yaml");
            std::fs::write(&file, with(CONFIG, &changes)).expect("its file");
            vec!["--config".into(), file.into()]
        });
        server.run();
        Self { grpc, http, query, server: Some(server) }
    }

    /// Returns the spans of a run, when there are as many as this.
    pub(crate) async fn spans(&self, run: &str, count: usize) -> Vec<Span> {
        until("Jaeger has the spans", async || {
            let mut spans = BTreeMap::new();
            for service in SERVICES {
                let path = format!("/api/traces?service={}&limit=1000", full(service, run));
                // A trace is found by each of its services.
                let found = each(&get_json(self.query, &path).await?, "data").flat_map(read).collect::<Vec<_>>();
                spans.extend(found.into_iter().map(|span| (span.id.clone(), span)));
            }
            (spans.len() >= count).then(|| spans.into_values().collect())
        })
        .await
    }
}

/// Reads a trace as the page of Jaeger gets it.
fn read(trace: &Value) -> Vec<Span> {
    let spans = each(trace, "spans").map(|span| {
        let mut attributes = tags(span);
        // As the page does: a span is below the first span of its trace that it refers to. Of a span that is linked to
        // its parent there is one reference, with the kind of a link.
        let mut links: Vec<_> = each(span, "references").collect();
        let parent = links.iter().position(|reference| reference["traceID"] == span["traceID"]);
        let parent = parent.map(|parent| text(&links.remove(parent)["spanID"]));
        let links = links.into_iter().map(|link| text(&link["spanID"])).collect();
        let failed = attributes.get("otel.status_code").is_some_and(|code| code == "ERROR");
        Span {
            service: text(&trace["processes"][text(&span["processID"]).as_str()]["serviceName"]),
            name: text(&span["operationName"]),
            kind: attributes.remove("span.kind").unwrap_or_default(),
            trace: text(&span["traceID"]),
            id: text(&span["spanID"]),
            parent,
            links,
            failure: failed.then(|| attributes.remove("otel.status_description").unwrap_or_default()),
            attributes,
        }
    });
    spans.collect()
}

fn tags(of: &Value) -> BTreeMap<String, String> {
    each(of, "tags").map(|tag| (text(&tag["key"]), text(&tag["value"]))).collect()
}

async fn shows_the_story(protocol: Protocol) {
    let jaeger = Jaeger::start().await;
    let endpoint = if protocol == Protocol::Grpc { jaeger.grpc } else { jaeger.http };
    let endpoint = format!("http://{endpoint}");
    let run = unique();
    let mut play = Play::start(&run, |name| {
        let to = otlp().endpoint(&endpoint).protocol(protocol).traces_only();
        to.service_name(name).attribute("service.namespace", "quickstart").build().expect("a set-up")
    })
    .await;
    play.orders().await;
    for (service, report) in play.stop().await {
        assert_eq!((report.dropped_spans, report.unfinished_spans), (0, 0), "{service}: {report}");
        // Jaeger would refuse them.
        assert_eq!((report.dropped_logs, report.failed_metric_exports), (0, 0), "{service}: {report}");
    }
    let spans = jaeger.spans(&run, SPANS).await;
    assert_eq!(picture(&spans), STORY);
    has_attributes(&spans);
}

#[tokio::test]
#[ignore = "needs Jaeger: cargo xtask test --backends"]
async fn the_story_is_in_jaeger_over_grpc() {
    shows_the_story(Protocol::Grpc).await;
}

#[tokio::test]
#[ignore = "needs Jaeger: cargo xtask test --backends"]
async fn the_story_is_in_jaeger_over_http() {
    shows_the_story(Protocol::HttpProtobuf).await;
}

#[tokio::test]
#[ignore = "needs Jaeger: cargo xtask test --backends"]
async fn the_story_is_in_jaeger_over_http_as_json() {
    shows_the_story(Protocol::HttpJson).await;
}
