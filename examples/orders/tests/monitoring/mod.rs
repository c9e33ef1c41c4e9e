//! The files for Grafana and Prometheus, as tests read them.

#![allow(dead_code, reason = "no test program uses all of it")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Returns where a file of the example is.
pub(crate) fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// Returns what is in a file of the example.
pub(crate) fn text(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A dashboard of Grafana.
pub(crate) struct Dashboard {
    pub(crate) file: String,
    pub(crate) json: Value,
}

/// A query, and where it stands.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) of: String,
    pub(crate) text: String,
}

impl Dashboard {
    /// Returns all dashboards.
    pub(crate) fn all() -> Vec<Self> {
        let folder = fs::read_dir(path("grafana/dashboards")).unwrap().map(|entry| entry.unwrap().file_name());
        let files = folder.map(|name| name.into_string().unwrap());
        files
            .map(|file| {
                let json = serde_json::from_str(&text(&format!("grafana/dashboards/{file}")));
                Self { json: json.unwrap_or_else(|error| panic!("{file}: {error}")), file }
            })
            .collect()
    }

    pub(crate) fn uid(&self) -> &str {
        self.json["uid"].as_str().unwrap()
    }

    /// Returns the rows and the panels, those in rows too.
    pub(crate) fn all_panels(&self) -> Vec<&Value> {
        let panels = list(&self.json, "panels");
        panels.iter().flat_map(|panel| std::iter::once(panel).chain(list(panel, "panels"))).collect()
    }

    /// Returns the panels that show something.
    pub(crate) fn panels(&self) -> Vec<&Value> {
        self.all_panels().into_iter().filter(|panel| panel["type"] != "row").collect()
    }

    pub(crate) fn variables(&self) -> &[Value] {
        list(&self.json["templating"], "list")
    }

    /// Returns the queries of the panels.
    pub(crate) fn queries(&self) -> Vec<Query> {
        let of = |panel: &Value| format!("{} of {}", panel["title"], self.file);
        let queries = self.panels().into_iter().flat_map(|panel| {
            list(panel, "targets").iter().map(move |target| (of(panel), target["expr"].as_str().unwrap()))
        });
        queries.map(|(of, text)| Query { of, text: text.to_owned() }).collect()
    }
}

/// Returns the array of an object; an empty one where there is none.
pub(crate) fn list<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object[name].as_array().map_or(&[], Vec::as_slice)
}

/// An alert of the rules.
#[derive(Debug)]
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) expression: String,
    lines: String,
}

impl Alert {
    /// Returns all alerts.
    pub(crate) fn all() -> Vec<Self> {
        let rules = text("prometheus/rules.yaml");
        let alerts = rules.split("      - alert: ").skip(1);
        alerts
            .map(|lines| {
                let (name, _) = lines.split_once('\n').unwrap();
                let (_, rest) = lines.split_once("        expr: |\n").unwrap();
                let (expression, _) = rest.split_once("        for: ").unwrap();
                Self { name: name.to_owned(), expression: expression.to_owned(), lines: lines.to_owned() }
            })
            .collect()
    }

    /// Returns what a setting, a label or an annotation is, as it is written.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        let start = format!("{key}: ");
        let value = self.lines.lines().find_map(|line| line.trim_start().strip_prefix(&start))?;
        Some(value).filter(|value| !value.is_empty())
    }
}

/// Returns the queries that lead from a trace to metrics.
pub(crate) fn queries_of_traces() -> Vec<Query> {
    let sources = text("grafana/provisioning/datasources/datasources.yaml");
    let (_, rest) = sources.split_once("tracesToMetrics:").unwrap();
    let (own, _) = rest.split_once("\n\n").unwrap();
    let queries = own.lines().filter_map(|line| line.trim_start().strip_prefix("query: "));
    queries.map(|text| Query { of: "a trace".to_owned(), text: text.replace("$$", "$") }).collect()
}
