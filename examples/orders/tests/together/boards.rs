//! What Grafana and Prometheus ask, asked of a Prometheus that reads the running example: nothing is asked in vain.
//!
//! The services are processes, under a load in which each kind of trouble of the example happens. Their metrics are read in both ways, from pages
//! of their own and from the page of a Collector that they are sent to. What the example never has, messages that are dropped or rejected and a
//! metric with too many series, a service in this process has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use throughline::export::{self, Telemetry};
use throughline::extract::State;
use throughline::nats::Subject;
use throughline::serve::Running;
use throughline::telemetry::Instrumentation;
use throughline::{App, Bytes, Failure, Publisher, serve};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use xtask::tools;

use crate::api::{PATIENCE, get, get_json, until};
use crate::brokers::{alone, nats, url};
use crate::collector::Collector;
use crate::monitoring::{Alert, Dashboard, Query, list, path, queries_of_traces, text};
use crate::prometheus_server::{PrometheusServer, encoded};
use crate::server::{free, program, with};

/// The services with metrics; `trouble` is the one of this test.
const SERVICES: [&str; 4] = ["billing", "warehouse", "storefront", "trouble"];

/// Each kind of order: that is good, whose shelf is being counted, that is given up and goes back, whose customer gets no credit, that nobody knows.
const ORDERS: [(&str, &str); 5] =
    [("acme", "lamp"), ("acme", "chair"), ("acme", "piano"), ("initech", "lamp"), ("acme", "unicorn")];

/// The time between two rounds of orders.
const ROUND: Duration = Duration::from_millis(100);

/// The running example, and what its metrics are read from.
struct Example {
    /// The page of each service.
    pages: [SocketAddr; 4],
    collector: Collector,
    trouble: Trouble,
    load: JoinHandle<()>,
    services: Vec<Service>,
}

impl Example {
    async fn start() -> Self {
        let pages = [(); 4].map(|()| free());
        // Nobody takes the traces.
        let collector = Collector::start(free()).await;
        let endpoint = collector.endpoint();
        let credit = free();
        let billing = [("HTTP_ADDRESS", credit.to_string())];
        let billing = service(env!("CARGO_BIN_EXE_billing"), &endpoint, pages[0], &billing).await;
        let warehouse = [("CREDIT_URL", format!("http://{credit}/credit"))];
        let warehouse = service(env!("CARGO_BIN_EXE_warehouse"), &endpoint, pages[1], &warehouse).await;
        let desk = free();
        let storefront = [("HTTP_ADDRESS", desk.to_string()), ("REDRIVE_AFTER_SECONDS", "1".to_owned())];
        let storefront = service(env!("CARGO_BIN_EXE_storefront"), &endpoint, pages[2], &storefront).await;
        let trouble = Trouble::make(&endpoint, pages[3]).await;
        let load = tokio::spawn(order(desk));
        Self { pages, collector, trouble, load, services: vec![storefront, warehouse, billing] }
    }

    async fn stop(self) {
        self.load.abort();
        self.trouble.end().await;
        for service in self.services {
            service.stop().await;
        }
    }
}

/// Starts a service of the example, and returns when it is ready.
async fn service(program: &str, endpoint: &str, page: SocketAddr, own: &[(&str, String)]) -> Service {
    let probes = free();
    let variables = [
        ("KAFKA_BROKERS", url("THROUGHLINE_KAFKA_URL")),
        ("RABBIT_URL", url("THROUGHLINE_RABBIT_URL")),
        ("NATS_URL", url("THROUGHLINE_NATS_URL")),
        ("PROBES_ADDRESS", probes.to_string()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.namespace=shop".to_owned()),
        ("OTEL_METRICS_EXPORTER", "otlp,prometheus".to_owned()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "500".to_owned()),
        ("OTEL_EXPORTER_PROMETHEUS_HOST", page.ip().to_string()),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", page.port().to_string()),
    ];
    let variables = variables.iter().chain(own).map(|(name, value)| (*name, value));
    let mut command = Command::new(program);
    command.envs(variables).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut service = Service(command.spawn().unwrap());
    until(&format!("{program} is ready"), async || {
        service.is_alive();
        get(probes, "/readyz").await
    })
    .await;
    service
}

/// A process that is killed when it is dropped.
struct Service(Child);

impl Service {
    fn is_alive(&mut self) {
        let ended = self.0.try_wait().unwrap();
        assert_eq!(ended, None, "the service has ended");
    }

    /// Lets it leave its group and say what is handled, so that the next test need not wait for either.
    async fn stop(mut self) {
        self.0.id().into_iter().for_each(tools::ask_to_stop);
        let status = timeout(PATIENCE, self.0.wait()).await.expect("the service ends").unwrap();
        assert!(status.success(), "{status}");
    }
}

/// Places orders of each kind until it is aborted.
async fn order(desk: SocketAddr) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    loop {
        for (tenant, item) in ORDERS {
            let wish = Full::from(format!(r#"{{"item": "{item}", "count": 1}}"#));
            let request = Request::post(format!("http://{desk}/orders")).header("x-tenant", tenant);
            // What becomes of it is for the metrics to say.
            let _ = client.request(request.body(wish).unwrap()).await;
        }
        sleep(ROUND).await;
    }
}

/// A service with the troubles that the example does not have.
struct Trouble {
    telemetry: Telemetry,
    publisher: Publisher,
    running: Running,
    gate: Arc<Semaphore>,
}

impl Trouble {
    /// Starts it: one message is refused, one is handled until the end, and hundreds find no room behind that.
    async fn make(endpoint: &str, page: SocketAddr) -> Self {
        let set_up = export::otlp().endpoint(endpoint).and(export::prometheus().address(page));
        let telemetry = set_up.service_name(SERVICES[3]).cardinality_limit(10).build().unwrap();
        let otel = Instrumentation::builder()
            .tracer_provider(telemetry.tracer_provider())
            .meter_provider(&telemetry.meter_provider())
            .build();
        let (broker, gate) = (nats().await, Arc::new(Semaphore::new(0)));
        let publisher = Publisher::new(&broker).telemetry(&otel);
        let app = App::new()
            .subscribe(Subject::new("boards.flood.*").buffer(1), wait)
            .subscribe(Subject::new("boards.refused"), refuse)
            .with_state(gate.clone())
            .telemetry(otel);
        let running = serve(broker, app).start().await.unwrap();
        publisher.request::<String>("boards.nobody", "is there anybody?").await.unwrap_err();
        publisher.publish("boards.refused", "no").await.unwrap();
        for number in 0..200 {
            publisher.publish(format!("boards.flood.{number}"), "water").await.unwrap();
        }
        Self { telemetry, publisher, running, gate }
    }

    /// Asks where nobody answers, and sends its metrics: by itself it does so once in a minute.
    async fn go_on(&self) {
        self.publisher.request::<String>("boards.nobody", "is there anybody?").await.unwrap_err();
        self.telemetry.flush().await.unwrap();
    }

    async fn end(self) {
        self.gate.add_permits(1_000);
        self.running.shutdown().await.unwrap();
        self.telemetry.shutdown().await.unwrap();
    }
}

async fn wait(State(gate): State<Arc<Semaphore>>) {
    let _ = gate.acquire().await;
}

async fn refuse() -> Result<(), Failure> {
    Err(Failure::new("refused", "not this one").permanent())
}

/// A Prometheus with the rules of the example.
struct Prometheus(PrometheusServer);

impl Prometheus {
    async fn start(config: &str) -> Self {
        let rules = |folder: &Path| {
            std::fs::copy(path("prometheus/rules.yaml"), folder.join("rules.yaml")).unwrap();
        };
        Self(PrometheusServer::start(config, rules).await)
    }

    /// Starts one that reads the Collector, with the file of the example.
    async fn of_the_collector(page: SocketAddr) -> Self {
        let changes = [("15s", "1s".to_owned()), ("collector:8889", page.to_string())];
        Self::start(&with(&text("prometheus/prometheus.yaml"), &changes)).await
    }

    /// Starts one that reads each service, by its name.
    async fn of_the_services(pages: [SocketAddr; 4]) -> Self {
        let jobs = SERVICES
            .iter()
            .zip(pages)
            .map(|(name, page)| format!("  - job_name: {name}\n    static_configs:\n      - targets: [\"{page}\"]\n"));
        let file = with(&text("prometheus/prometheus.yaml"), &[("15s", "1s".to_owned())]);
        let (common, _) = file.split_once("scrape_configs:\n").unwrap();
        Self::start(&format!("{common}scrape_configs:\n{}", jobs.collect::<String>())).await
    }

    /// Says whether the answer has a value, which is a number; a query that is none is a failure.
    async fn has(&self, query: &str) -> Option<()> {
        let answer = get_json(self.0.address, &format!("/api/v1/query?query={}", encoded(query))).await?;
        let is_number = |series: &Value| series["value"][1].as_str().is_some_and(|value| value != "NaN");
        list(&answer["data"], "result").iter().any(is_number).then_some(())
    }

    /// Returns the names of the metrics of services.
    async fn names(&self) -> BTreeSet<String> {
        let answer = get_json(self.0.address, "/api/v1/label/__name__/values").await.unwrap();
        let names = list(&answer, "data").iter().filter_map(Value::as_str);
        let is_ours = |name: &&str| ["messaging_", "otel_", "throughline_"].iter().any(|start| name.starts_with(start));
        names.filter(is_ours).map(ToOwned::to_owned).collect()
    }

    /// Asserts that it answers each of them with a number, and names those it does not answer in time.
    async fn has_all(&self, questions: &BTreeMap<String, String>, trouble: &Trouble) {
        let mut open: Vec<(&String, &String)> = questions.iter().collect();
        let deadline = Instant::now() + PATIENCE;
        while !open.is_empty() {
            assert!(Instant::now() < deadline, "nothing is found by {open:#?}");
            trouble.go_on().await;
            let mut silent = Vec::new();
            for (query, of) in open {
                if self.has(query).await.is_none() {
                    silent.push((query, of));
                }
            }
            open = silent;
            sleep(ROUND).await;
        }
    }

    /// Asserts that there is something to choose for each variable of a dashboard.
    async fn has_choices(&self, board: &Dashboard) {
        for variable in board.variables().iter().filter(|variable| variable["type"] == "query") {
            let query = as_grafana_asks(variable["query"]["query"].as_str().unwrap());
            let (selector, label) = query.strip_prefix("label_values(").unwrap().rsplit_once(", ").unwrap();
            let path = format!("/api/v1/label/{}/values?match[]={}", label.trim_end_matches(')'), encoded(selector));
            until(&format!("{query} of {}", board.file), async || {
                let answer = get_json(self.0.address, &path).await?;
                (!list(&answer, "data").is_empty()).then_some(())
            })
            .await;
        }
    }
}

/// Puts into a query what Grafana does where everything is chosen, or where it comes from a span of the warehouse.
fn as_grafana_asks(query: &str) -> String {
    let query = query.replace("$__rate_interval", "1m").replace("$__tags", "job=\"warehouse\"");
    let variables = ["job", "system", "destination", "pattern"];
    let query = variables.iter().fold(query, |query, name| query.replace(&format!("\"${name}\""), "\".*\""));
    assert!(!query.replace("\"$1\"", "").contains('$'), "a variable that is not known: {query}");
    query
}

/// Returns what an alert compares: its expression without the bounds, and without what silences it where all is well.
fn compared(expression: &str) -> String {
    let mut depth = 0_u32;
    let lines = expression.lines().take_while(|line| {
        let is_silence = depth == 0 && line.trim_start().starts_with("unless");
        let count = |sign| u32::try_from(line.matches(sign).count()).unwrap();
        depth = depth + count('(') - count(')');
        !is_silence
    });
    let bound = |line: &str| {
        let (rest, number) = line.rsplit_once(" > ")?;
        number.parse::<f64>().is_ok().then(|| rest.to_owned())
    };
    lines.map(|line| bound(line).unwrap_or_else(|| line.to_owned())).collect::<Vec<_>>().join("\n")
}

/// Returns the selectors of a query: a sum of two may have a value where one of them finds nothing.
fn selectors(query: &str) -> BTreeSet<&str> {
    let opened = query.match_indices('{').map(|(open, _)| open);
    let selectors = opened.map(|open| {
        let is_of_a_name = |sign: char| sign.is_ascii_alphanumeric() || sign == '_' || sign == ':';
        let name = query[..open].chars().rev().take_while(|sign| is_of_a_name(*sign)).count();
        let length = query[open..].find('}').unwrap() + 1;
        &query[open - name..open + length]
    });
    selectors.collect()
}

/// Returns all that is asked, by its text: by the dashboards, from a trace, and by the alerts without their bounds; and each selector in it.
fn questions() -> BTreeMap<String, String> {
    let mut questions = BTreeMap::new();
    let boards: Vec<Query> = Dashboard::all().iter().flat_map(Dashboard::queries).collect();
    for Query { of, text } in boards.into_iter().chain(queries_of_traces()) {
        let asked = as_grafana_asks(&text);
        let parts = selectors(&asked);
        assert!(!parts.is_empty(), "{of}: {text}");
        questions.extend(parts.into_iter().map(|part| (part.to_owned(), format!("a part of {of}"))));
        questions.insert(asked, of);
    }
    for alert in Alert::all() {
        let parts = selectors(&alert.expression);
        assert!(!parts.is_empty(), "{alert:?}");
        questions.extend(parts.into_iter().map(|part| (part.to_owned(), format!("a part of {}", alert.name))));
        questions.insert(compared(&alert.expression), alert.name);
    }
    questions
}

#[tokio::test]
#[ignore = "needs all brokers, a Collector and Prometheus: cargo xtask test"]
async fn every_query_of_dashboards_and_alerts_finds_something_read_from_services_and_from_the_collector() {
    let _alone = alone().await;
    let example = Example::start().await;
    let direct = Prometheus::of_the_services(example.pages).await;
    let collected = Prometheus::of_the_collector(example.collector.page).await;
    let questions = questions();
    assert!(questions.len() > 80, "{}", questions.len());
    for prometheus in [&direct, &collected] {
        prometheus.has_all(&questions, &example.trouble).await;
        for board in Dashboard::all() {
            prometheus.has_choices(&board).await;
        }
    }
    assert_eq!(direct.names().await, collected.names().await, "the names are the same, however metrics are read");
    // What went wrong raises its alert.
    for alert in ["DeadLetters", "MessagesDropped", "MessagesRejected", "TooManySeries"] {
        let firing = format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}}");
        until(&firing, async || direct.has(&firing).await).await;
        until(&firing, async || collected.has(&firing).await).await;
    }
    example.stop().await;
}

/// Runs `promtool` in the folder of the files.
fn promtool(arguments: &[&str]) {
    let promtool = program("THROUGHLINE_PROMTOOL");
    let output = std::process::Command::new(promtool).args(arguments).current_dir(path("prometheus")).output();
    let output = output.unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "promtool {arguments:?}:\n{said}");
}

#[test]
#[ignore = "needs promtool: cargo xtask test"]
fn prometheus_takes_the_files_and_each_alert_fires_when_it_has_to() {
    promtool(&["check", "config", "prometheus.yaml"]);
    promtool(&["check", "rules", "rules.yaml"]);
    promtool(&["test", "rules", "rules_test.yaml"]);
}
