//! `compose.yaml` beside the example: what can be compared without Docker.

#![allow(clippy::unwrap_used, reason = "helpers of tests: what cannot be done is a failure of the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use yaml_rust2::{Yaml, YamlLoader};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(folder().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn load(path: &str) -> Yaml {
    YamlLoader::load_from_str(&read(path)).unwrap().remove(0)
}

/// Returns the entries of a map, those that it merges (`<<`) where it has none of its own.
fn entries(map: &Yaml) -> BTreeMap<String, Yaml> {
    let mut all = BTreeMap::new();
    for (key, value) in map.as_hash().into_iter().flatten() {
        match key.as_str().unwrap() {
            "<<" => entries(value).into_iter().for_each(|(key, value)| drop(all.entry(key).or_insert(value))),
            key => drop(all.insert(key.to_owned(), value.clone())),
        }
    }
    all
}

fn texts(list: &Yaml) -> Vec<&str> {
    list.as_vec().into_iter().flatten().map(|item| item.as_str().unwrap()).collect()
}

/// Returns the services of the file, each with what it is merged of.
fn services(path: &str) -> BTreeMap<String, BTreeMap<String, Yaml>> {
    entries(&load(path)["services"]).into_iter().map(|(name, service)| (name, entries(&service))).collect()
}

/// Of the example's own.
const PROGRAMS: [&str; 3] = ["billing", "storefront", "warehouse"];

#[test]
fn each_file_that_is_mounted_is_there() {
    let mut mounted = 0;
    for (name, service) in services("compose.yaml") {
        for volume in service.get("volumes").map(texts).unwrap_or_default() {
            let path = volume.split(':').next().unwrap();
            assert!(path.starts_with("./"), "{name}: {volume} is of the machine");
            assert!(volume.ends_with(":ro"), "{name}: {volume} may be written to");
            assert!(folder().join(path).exists(), "{name}: {path} is not there");
            mounted += 1;
        }
    }
    assert!(mounted >= 6, "{mounted}");
}

#[test]
fn each_port_is_open_on_this_machine_alone() {
    let services = services("compose.yaml");
    let ports = services.values().filter_map(|service| service.get("ports")).flat_map(texts).collect::<Vec<_>>();
    assert!(ports.len() >= 6, "{ports:?}");
    let mut outside = BTreeSet::new();
    for port in ports {
        let port = port.strip_prefix("127.0.0.1:").unwrap_or_else(|| panic!("{port} is open to everybody"));
        assert!(outside.insert(port.split(':').next().unwrap()), "{port} is there twice");
    }
}

#[test]
fn each_image_has_a_version() {
    let others = services("../../compose.yaml");
    for (name, service) in services("compose.yaml") {
        let image = service["image"].as_str().unwrap();
        let (_, tag) = image.split_once(':').unwrap_or_else(|| panic!("{name}: {image} has no tag"));
        assert!(tag.contains('.') && tag.contains(|sign: char| sign.is_ascii_digit()), "{name}: {image} moves");
        // The brokers that the tests run on.
        if let Some(tested) = others.get(&name) {
            assert!(
                image.starts_with(tested["image"].as_str().unwrap().trim_end_matches("-alpine")),
                "{name}: {image}"
            );
        }
    }
    for line in read("Dockerfile").lines().filter_map(|line| line.strip_prefix("FROM ")) {
        assert!(line.contains(':') && !line.contains("latest"), "{line}");
    }
}

#[test]
fn whoever_is_waited_for_says_whether_it_is_ready() {
    let services = services("compose.yaml");
    let mut waited = BTreeSet::new();
    for (name, service) in &services {
        for (other, how) in service.get("depends_on").map(entries).unwrap_or_default() {
            assert_eq!(how["condition"].as_str(), Some("service_healthy"), "{name}: {other}");
            let check = services[&other].get("healthcheck").unwrap_or_else(|| panic!("{other} has no health check"));
            assert!(!check["test"].is_badvalue(), "{other}: {check:?}");
            waited.insert(other);
        }
    }
    for name in ["billing", "kafka", "nats", "rabbit", "storefront", "warehouse"] {
        assert!(waited.contains(name), "nobody waits for {name}");
    }
}

/// The variables in the table of the README.
fn documented() -> BTreeSet<String> {
    let readme = read("README.md");
    let table = readme.split("## Settings").nth(1).unwrap();
    let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    cells.map(str::to_owned).collect()
}

#[test]
fn the_variables_of_the_services_are_those_of_the_readme_and_of_the_code() {
    let documented = documented();
    for name in PROGRAMS {
        for variable in entries(&services("compose.yaml")[name]["environment"]).into_keys() {
            assert!(variable.starts_with("OTEL_") || documented.contains(&variable), "{name}: {variable} is unknown");
        }
    }
    let code: String = PROGRAMS.map(|name| read(&format!("src/bin/{name}.rs"))).concat();
    let used = code.split("setting").skip(1).filter_map(|rest| rest.split('"').nth(1)).map(str::to_owned);
    let used: BTreeSet<String> = used.filter(|name| name.contains('_')).collect();
    let documented: BTreeSet<String> = documented.into_iter().filter(|name| *name != "OTEL_*").collect();
    assert_eq!(used, documented);
}

#[test]
fn the_collector_sends_to_services_that_are_there() {
    let services = services("compose.yaml");
    let collector = load("collector.yaml");
    for (name, exporter) in entries(&collector["exporters"]) {
        let endpoint = exporter["endpoint"].as_str().unwrap();
        let host = endpoint.trim_start_matches("http://").split(':').next().unwrap();
        assert!(host == "0.0.0.0" || services.contains_key(host), "{name}: {endpoint}");
    }
    let variable = services["collector"]["environment"]["TRACES_TO"].as_str().unwrap();
    let (_, default) = variable.split_once(":-").unwrap();
    assert!(read("collector.yaml").contains(&format!("${{env:TRACES_TO:-{default}")), "{variable}");
}
