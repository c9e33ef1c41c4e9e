//! The three services in one process, each with telemetry of its own, on whatever brokers a test has.

#![allow(dead_code, reason = "no test program uses all of it")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SpanData;
use orders::billing::{self, Books};
use orders::http::{Client, spawn_probes};
use orders::storefront::{self, Desk, Progress};
use orders::warehouse::{self, Shelf, Warehouse};
use throughline::Bytes;
use throughline::broker::Broker;
use throughline::serve::Running;
use throughline::telemetry::Instrumentation;
use throughline_testing::{Capture, TraceTree};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the tests look for in spans; no service shows more than the tenant.
const BAGGAGE: [&str; 3] = ["coupon", "tenant", "warehouse"];

/// The connections of the three services: each has its own.
#[derive(Clone)]
pub(crate) struct Connections<K, R, N> {
    pub(crate) storefront: (K, R, N),
    pub(crate) warehouse: (K, R),
    pub(crate) billing: (R, N),
}

/// The services, running.
pub(crate) struct Shop {
    pub(crate) storefront: Capture,
    pub(crate) warehouse: Capture,
    pub(crate) billing: Capture,
    desk: Desk,
    address: SocketAddr,
    running: Vec<Running>,
}

fn engine(capture: &Capture) -> Instrumentation {
    capture.instrumentation().baggage_attributes(BAGGAGE).build()
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

impl Shop {
    /// Starts the services. The shelves of chairs and pianos are being counted when somebody looks.
    pub(crate) async fn open<K: Broker, R: Broker, N: Broker>(connections: Connections<K, R, N>) -> Self {
        let [at_storefront, at_warehouse, at_billing] = [Capture::new(), Capture::new(), Capture::new()];

        let (rabbit, nats) = connections.billing;
        let (listener, credit) = listen().await;
        let books = Books::new(engine(&at_billing), &nats, ["initech".to_owned()]);
        let billing = billing::service(rabbit, nats, books, listener).start().await.unwrap();

        let (kafka, rabbit) = connections.warehouse;
        let shelf = |counts| Shelf { cents: 1_000, items: 1_000, counts };
        let shelves = [("lamp", shelf(0)), ("chair", shelf(1)), ("piano", shelf(3))];
        let tracer = at_warehouse.tracer_provider().tracer("warehouse");
        let client = Client::new(format!("http://{credit}/credit").parse().unwrap());
        let warehouse = Warehouse::new(engine(&at_warehouse), tracer, &rabbit, client, shelves);
        let warehouse = warehouse::service(kafka, rabbit, warehouse).start().await.unwrap();

        let (kafka, rabbit, nats) = connections.storefront;
        let (listener, address) = listen().await;
        let desk = Desk::new(engine(&at_storefront), &kafka, &rabbit, Duration::from_millis(20));
        let storefront = storefront::service(kafka, rabbit, nats, desk.clone(), listener).start().await.unwrap();

        Self {
            storefront: at_storefront,
            warehouse: at_warehouse,
            billing: at_billing,
            desk,
            address,
            running: vec![storefront, warehouse, billing],
        }
    }

    /// Places an order as a customer does, and returns the status and the body of the answer.
    pub(crate) async fn place(&self, tenant: &str, body: &'static str) -> (u16, String) {
        let request = Request::post(format!("http://{}/orders", self.address))
            .header("x-tenant", tenant)
            .header("x-coupon", "spring");
        send(request.body(Full::from(body)).unwrap()).await
    }

    /// Places an order, and returns how it ended.
    pub(crate) async fn order(&self, tenant: &str, body: &'static str) -> Progress {
        let (status, id) = self.place(tenant, body).await;
        assert_eq!(status, 202, "{id}");
        let id: u64 = id.parse().unwrap();
        let end = async {
            loop {
                match self.desk.progress(id) {
                    Some(Progress::Placed) | None => sleep(Duration::from_millis(1)).await,
                    Some(end) => return end,
                }
            }
        };
        timeout(PATIENCE, end).await.unwrap_or_else(|_| panic!("the order does not end:\n{}", self.tree()))
    }

    /// Starts the probes of the storefront.
    pub(crate) async fn probes(&self) -> Probes {
        let (listener, address) = listen().await;
        spawn_probes(listener, self.running[0].health());
        Probes { address }
    }

    /// Ends the services; what was under way is done then.
    pub(crate) async fn close(&mut self) {
        for service in self.running.drain(..) {
            service.shutdown().await.unwrap();
        }
    }

    /// Returns the spans of all services.
    pub(crate) fn spans(&self) -> Vec<SpanData> {
        [&self.storefront, &self.warehouse, &self.billing].into_iter().flat_map(Capture::spans).collect()
    }

    pub(crate) fn tree(&self) -> TraceTree {
        TraceTree::new(self.spans())
    }

    /// Returns the trace of an order, the first of which is number 0.
    pub(crate) fn trace(&self, number: usize) -> TraceTree {
        let id = self.tree().find_all("POST /orders")[number].span_context.trace_id();
        TraceTree::new(self.spans().into_iter().filter(|span| span.span_context.trace_id() == id))
    }
}

/// Where the probes of a service are answered.
pub(crate) struct Probes {
    address: SocketAddr,
}

impl Probes {
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        send(Request::get(format!("http://{}{path}", self.address)).body(Full::default()).unwrap()).await
    }
}

async fn send(request: Request<Full<Bytes>>) -> (u16, String) {
    let client = HttpClient::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let answer = timeout(PATIENCE, client.request(request)).await.unwrap().unwrap();
    let status = answer.status().as_u16();
    (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

/// Returns the names of the spans of a service, in the order of the alphabet.
pub(crate) fn names(capture: &Capture) -> Vec<String> {
    let mut names: Vec<_> = capture.spans().iter().map(|span| span.name.to_string()).collect();
    names.sort();
    names
}

/// Returns the baggage that a span shows, as `key=value` with commas.
pub(crate) fn baggage(span: &SpanData) -> String {
    let shown: BTreeMap<_, _> = span
        .attributes
        .iter()
        .filter_map(|attribute| Some((attribute.key.as_str().strip_prefix("throughline.baggage.")?, &attribute.value)))
        .collect();
    shown.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
