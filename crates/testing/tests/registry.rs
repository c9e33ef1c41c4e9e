//! The registry of what is emitted beyond the conventions, `docs/registry`: the code has the same names, with the same types, instruments and
//! units.

// Helpers of tests may panic as tests do.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what cannot be done is a failure of the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use opentelemetry::trace::SpanKind;
use opentelemetry::{Array, Value};
use throughline_core::middleware::Retry;
use throughline_core::telemetry::semconv::SCHEMA_URL;
use throughline_core::{App, Delivery, Envelope, Failure, Handler, PublishError, RetryPolicy, Settlement};
use throughline_memory::Channel;
use throughline_testing::{AppTest, MetricKind, MetricPoint, start_with};
use yaml_rust2::{Yaml, YamlLoader};

/// What the project's own names begin with. The conventions have none for JetStream.
const OWN: [&str; 2] = ["throughline.", "messaging.nats."];

/// What only another broker than the in-memory one emits.
const OF_OTHERS: [&str; 5] = [
    "throughline.consumer.dropped",
    "throughline.consumer.lag",
    "throughline.retry.destination",
    "messaging.nats.sequence",
    "messaging.nats.stream",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The groups of the registry.
struct Registry(Vec<Yaml>);

impl Registry {
    fn read() -> Self {
        let files = ["attributes", "metrics", "spans"].map(|name| format!("docs/registry/{name}.yaml"));
        Self(files.iter().flat_map(|file| document(file)["groups"].as_vec().unwrap().clone()).collect())
    }

    fn of_type(&self, kind: &'static str) -> impl Iterator<Item = &Yaml> {
        self.0.iter().filter(move |group| text(group, "type") == kind)
    }

    /// The attributes that are defined, with their types.
    fn attributes(&self) -> BTreeMap<String, &Yaml> {
        let defined = self.0.iter().flat_map(refs).filter(|attribute| !attribute["id"].is_badvalue());
        defined.map(|attribute| (text(attribute, "id").to_owned(), &attribute["type"])).collect()
    }

    /// The type of an attribute, of its own or by the beginning of its name.
    fn type_of(&self, name: &str) -> Option<&Yaml> {
        let attributes = self.attributes();
        let is_template = |kind: &Yaml| kind.as_str().is_some_and(|kind| kind.starts_with("template["));
        let begins = |id: &str| name.strip_prefix(id).is_some_and(|rest| rest.starts_with('.'));
        let found = attributes.iter().find(|(id, kind)| *id == name || is_template(kind) && begins(id));
        found.map(|(_, kind)| *kind)
    }

    fn metric(&self, name: &str) -> Option<&Yaml> {
        self.of_type("metric").find(|group| text(group, "metric_name") == name)
    }

    /// What a group refers to, with what it extends, and whether that must be there.
    fn referred(&self, group: &Yaml) -> BTreeMap<String, bool> {
        let parent = group["extends"].as_str().map(|id| self.0.iter().find(|group| text(group, "id") == id).unwrap());
        let mut referred = parent.map(|parent| self.referred(parent)).unwrap_or_default();
        let is_required = |attribute: &Yaml| attribute["requirement_level"].as_str() == Some("required");
        referred.extend(refs(group).map(|attribute| (text(attribute, "ref").to_owned(), is_required(attribute))));
        referred
    }
}

fn document(path: &str) -> Yaml {
    let text = fs::read_to_string(root().join(path)).unwrap();
    YamlLoader::load_from_str(&text).unwrap().remove(0)
}

fn text<'a>(yaml: &'a Yaml, key: &str) -> &'a str {
    yaml[key].as_str().unwrap_or_else(|| panic!("no {key} in {yaml:?}"))
}

fn refs(group: &Yaml) -> impl Iterator<Item = &Yaml> {
    group["attributes"].as_vec().into_iter().flatten()
}

/// The sources of the crates that emit, by their paths.
fn sources() -> BTreeMap<PathBuf, String> {
    fn collect(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path, text);
            }
        }
    }
    let mut found = BTreeMap::new();
    for name in ["core", "memory", "nats", "kafka", "rabbit", "export"] {
        collect(&root().join("crates").join(name).join("src"), &mut found);
    }
    found
}

/// The constants with names of the project's own: their identifiers, and what they say.
fn constants() -> BTreeMap<String, String> {
    let mut constants = BTreeMap::new();
    for line in sources().values().flat_map(|text| text.lines()) {
        let Some((identifier, said)) = line.split_once("const ").and_then(|(_, rest)| rest.split_once(": &str = \""))
        else {
            continue;
        };
        let said = said.split('"').next().unwrap();
        if OWN.iter().any(|own| said.starts_with(own)) {
            constants.insert(identifier.to_owned(), said.to_owned());
        }
    }
    constants
}

#[test]
fn the_registry_has_the_names_of_the_code_and_no_others() {
    let registry = Registry::read();
    let in_code: BTreeSet<String> =
        constants().into_values().map(|name| name.trim_end_matches('.').to_owned()).collect();
    let metrics = registry.of_type("metric").map(|group| text(group, "metric_name").to_owned());
    let in_registry: BTreeSet<String> = registry.attributes().into_keys().chain(metrics).collect();
    assert_eq!(in_code, in_registry);
    assert!(in_code.len() > 10, "{in_code:?}");
}

/// A live check takes a name for wrong that begins with another attribute's.
#[test]
fn no_attribute_is_the_namespace_of_another_one() {
    let registry = Registry::read();
    let attributes = registry.attributes();
    for (outer, inner) in attributes.keys().flat_map(|outer| attributes.keys().map(move |inner| (outer, inner))) {
        assert!(!inner.starts_with(&format!("{outer}.")), "{inner} is within {outer}");
    }
}

#[test]
fn what_groups_refer_to_is_there() {
    let registry = Registry::read();
    let ids: BTreeSet<&str> = registry.0.iter().map(|group| text(group, "id")).collect();
    assert_eq!(ids.len(), registry.0.len(), "an id is there twice");
    for group in &registry.0 {
        assert!(!text(group, "brief").is_empty());
        for name in refs(group).filter_map(|attribute| attribute["ref"].as_str()) {
            let is_of_the_conventions = !OWN.iter().any(|own| name.starts_with(own));
            assert!(is_of_the_conventions || registry.attributes().contains_key(name), "{name} is not defined");
        }
    }
}

#[test]
fn the_registry_builds_on_the_conventions_of_the_code() {
    let manifest = document("docs/registry/manifest.yaml");
    let dependency = &manifest["dependencies"][0];
    assert_eq!(text(dependency, "schema_url"), SCHEMA_URL);
    let version = SCHEMA_URL.rsplit('/').next().unwrap();
    assert!(text(dependency, "registry_path").contains(&format!("/v{version}.zip")), "{dependency:?}");
    let version = env!("CARGO_PKG_VERSION");
    assert!(text(&manifest, "schema_url").ends_with(&format!("/{version}")), "the version is {version}");
}

/// Those that no test without a server can measure: as the code writes them.
#[test]
fn metrics_of_one_broker_have_the_instrument_and_the_unit_of_the_code() {
    let (registry, sources) = (Registry::read(), sources());
    for (identifier, name) in constants() {
        let Some(metric) = registry.metric(&name).filter(|_| OF_OTHERS.contains(&name.as_str())) else { continue };
        let made = sources.values().find_map(|source| {
            let (before, after) = source.split_once(&format!("({identifier})\n"))?;
            let builder = before.rsplit('.').next()?;
            let unit = after.split("with_unit(\"").nth(1)?.split('"').next()?;
            Some((builder, unit))
        });
        let (builder, unit) = made.unwrap_or_else(|| panic!("nothing makes {name}"));
        let kind = builder.rsplit('_').next().unwrap();
        assert_eq!((kind, unit), (text(metric, "instrument"), text(metric, "unit")), "{name}: {builder}");
    }
}

/// Handles what its body says.
async fn handle(order: String, delivery: Delivery) -> Result<Settlement, Failure> {
    match order.as_str() {
        "refused" => Ok(Settlement::reject("unknown tenant")),
        "again" if delivery.attempt() == 1 => Ok(Settlement::retry_after(Duration::from_secs(1))),
        "late" if delivery.attempt() < 3 => Err(Failure::new("stock::Busy", "busy")),
        _ => Ok(Settlement::Ack),
    }
}

async fn price(_item: String) -> Result<String, Failure> {
    Err(Failure::new("stock::OutOfStock", "none left").with_answer(404, "no such item"))
}

/// An app to which everything has happened that the registry tells of, but for what only other brokers have.
async fn eventful() -> AppTest {
    let app = App::new()
        .subscribe(Channel::new("orders").group("stock"), handle)
        .subscribe(Channel::new("letters").group("stock"), handle.dead_letter("letters.dead"))
        .subscribe(Channel::new("tries").group("stock"), handle.middleware(Retry::new(RetryPolicy::new())))
        .subscribe(Channel::new("prices"), price);
    let telemetry = |builder: throughline_core::telemetry::Builder<_>| {
        builder.capture_headers(["tenant"]).baggage_attributes(["user"])
    };
    let test = start_with(app, telemetry).await;
    let publisher = test.broker().publisher().without_telemetry();
    let listed = |destination, body| {
        Envelope::new(destination, body).with_header("tenant", "eu").with_header("baggage", "user=anna")
    };
    for (destination, body) in [("orders", "fine"), ("orders", "again"), ("letters", "refused"), ("tries", "late")] {
        publisher.publish_envelope(listed(destination, body)).await.unwrap();
    }
    test.publish("orders", "refused").await;
    let _: PublishError = test.publisher().request::<String>("prices", "bread").await.unwrap_err();
    test.settle().await;
    test
}

#[tokio::test(start_paused = true)]
async fn attributes_of_spans_are_as_the_registry_says() {
    let (registry, test) = (Registry::read(), eventful().await);
    let mut seen = BTreeSet::new();
    for span in test.capture().spans() {
        let group = |name: &str| {
            registry.of_type("span").any(|group| {
                let here = registry.referred(group).into_keys().any(|known| name.starts_with(&known));
                here && text(group, "span_kind") == kind_of(&span.span_kind)
            })
        };
        for attribute in span.attributes.iter().filter(|attribute| is_own(attribute.key.as_str())) {
            let name = attribute.key.as_str();
            let expected = registry.type_of(name).unwrap_or_else(|| panic!("{name} is not in the registry"));
            assert!(fits(expected, &attribute.value), "{name} is {:?}, not {expected:?}", attribute.value);
            assert!(group(name), "no {:?} span of the registry has {name}", span.span_kind);
            seen.insert(name.to_owned());
        }
    }
    let on_metrics = ["throughline.settlement"];
    for name in registry.attributes().into_keys().filter(|name| !on_metrics.contains(&name.as_str())) {
        let is_seen = seen.iter().any(|seen| seen.starts_with(&name));
        assert!(is_seen || OF_OTHERS.contains(&name.as_str()), "{name} was not emitted, so nothing checked it");
    }
}

#[tokio::test(start_paused = true)]
async fn metrics_are_as_the_registry_says() {
    let (registry, test) = (Registry::read(), eventful().await);
    let points = test.capture().metrics();
    for point in points.iter().filter(|point| is_own(&point.name)) {
        let metric = registry.metric(&point.name).unwrap_or_else(|| panic!("{} is not in the registry", point.name));
        assert_eq!(
            (instrument(point), point.unit.as_str()),
            (text(metric, "instrument"), text(metric, "unit")),
            "{}",
            point.name
        );
        let known = registry.referred(metric);
        for (name, value) in &point.attributes {
            assert!(known.contains_key(name), "{} has {name}", point.name);
            assert!(!is_own(name) || fits(registry.type_of(name).unwrap(), value), "{name} is {value:?}");
        }
        for name in known.into_iter().filter_map(|(name, is_required)| is_required.then_some(name)) {
            assert!(point.attributes.contains_key(&name), "{} lacks {name}: {:?}", point.name, point.attributes);
        }
    }
    for name in registry.of_type("metric").map(|group| text(group, "metric_name")) {
        let is_seen = points.iter().any(|point| point.name == name);
        assert!(is_seen || OF_OTHERS.contains(&name), "{name} was not emitted, so nothing checked it");
    }
    let outcomes: BTreeSet<_> =
        points.iter().filter_map(|point| point.attributes.get("throughline.settlement")).map(Value::as_str).collect();
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), ["ack", "dead_letter", "reject", "retry"]);
}

fn is_own(name: &str) -> bool {
    OWN.iter().any(|own| name.starts_with(own))
}

fn kind_of(kind: &SpanKind) -> &'static str {
    match kind {
        SpanKind::Client => "client",
        SpanKind::Consumer => "consumer",
        SpanKind::Internal => "internal",
        SpanKind::Producer => "producer",
        SpanKind::Server => "server",
    }
}

fn instrument(point: &MetricPoint) -> &'static str {
    match point.kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
        MetricKind::UpDownCounter => "updowncounter",
        other => panic!("the registry has no {other:?}"),
    }
}

/// Whether a value is of a type of the registry: a name, a template of one, or a list of the values there are.
fn fits(expected: &Yaml, value: &Value) -> bool {
    if let Some(members) = expected["members"].as_vec() {
        return members.iter().any(|member| text(member, "value") == value.as_str());
    }
    let expected = expected.as_str().unwrap();
    let expected = expected.strip_prefix("template[").and_then(|rest| rest.strip_suffix(']')).unwrap_or(expected);
    let found = match value {
        Value::Array(Array::String(_)) => "string[]",
        Value::Bool(_) => "boolean",
        Value::F64(_) => "double",
        Value::I64(_) => "int",
        Value::String(_) => "string",
        other => panic!("the registry has nothing like {other:?}"),
    };
    found == expected
}
