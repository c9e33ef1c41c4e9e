//! The dashboards and the alerts, as files: what they have to have, and where they lead. What their queries find is seen with the brokers, in
//! `together`.

#![allow(clippy::unwrap_used, reason = "helpers of tests: what cannot be done is a failure of the test")]

mod monitoring;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use self::monitoring::{Alert, Dashboard, list, queries_of_traces, text};

/// The width of a dashboard, in units of Grafana.
const WIDTH: u64 = 24;

/// What is seen at once on a screen of 1080 lines, in units of 38 of them.
const SCREEN: u64 = 24;

/// Units of Grafana: messages, operations and other things in a second, a part of one, seconds, a number.
const UNITS: [&str; 6] = ["mps", "ops", "cps", "percentunit", "s", "short"];

/// What Grafana replaces beside the variables of a dashboard.
const BUILT_IN: [&str; 4] = ["__rate_interval", "__from", "__to", "__url_time_range"];

/// Where the runbook is seen by those who have an alert.
const RUNBOOK: &str = "https://github.com/throughline-rs/throughline/blob/main/docs/src/runbook.md";

/// A rectangle of a dashboard, in its units.
#[derive(Clone, Copy, Debug)]
struct Place {
    x: u64,
    y: u64,
    width: u64,
    height: u64,
}

impl Place {
    fn of(panel: &Value) -> Self {
        let unit = |name: &str| panel["gridPos"][name].as_u64().unwrap_or_else(|| panic!("{name} of {panel}"));
        Self { x: unit("x"), y: unit("y"), width: unit("w"), height: unit("h") }
    }

    fn overlaps(self, other: Self) -> bool {
        let apart =
            |one: u64, length: u64, other: u64, other_length: u64| one + length <= other || other + other_length <= one;
        !apart(self.x, self.width, other.x, other.width) && !apart(self.y, self.height, other.y, other.height)
    }
}

/// Returns the names of the variables in a text: `$name`, `${name}`, `${name:format}`.
fn variables_in(text: &str) -> BTreeSet<&str> {
    let names = text.split('$').skip(1).map(|rest| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        let end = rest.find(|sign: char| !sign.is_alphanumeric() && sign != '_').unwrap_or(rest.len());
        &rest[..end]
    });
    // `$1` is a part of a match of Prometheus.
    names.filter(|name| !name.is_empty() && name.parse::<u8>().is_err()).collect()
}

/// Returns the texts under the key `url` anywhere in a value.
fn urls(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(values) => values.iter().flat_map(urls).collect(),
        Value::Object(members) => {
            let own = members.get("url").and_then(Value::as_str);
            own.into_iter().chain(members.values().flat_map(urls)).collect()
        }
        _ => Vec::new(),
    }
}

/// Returns an URL without its percent-encoding.
fn decoded(url: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = url.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next().unwrap(), rest.next().unwrap()];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn names(board: &Dashboard) -> BTreeSet<&str> {
    board.variables().iter().map(|variable| variable["name"].as_str().unwrap()).collect()
}

#[test]
fn dashboards_and_panels_have_ids_of_their_own() {
    let boards = Dashboard::all();
    let uids: BTreeSet<&str> = boards.iter().map(Dashboard::uid).collect();
    let titles: BTreeSet<&str> = boards.iter().map(|board| board.json["title"].as_str().unwrap()).collect();
    assert_eq!((boards.len(), uids.len(), titles.len()), (2, 2, 2), "{uids:?}");
    for board in &boards {
        assert!(board.json.get("id").is_none(), "{}: a number is Grafana's to give", board.file);
        assert!(board.uid().len() <= 40, "{}: Grafana takes no longer one", board.uid());
        let panels = board.all_panels();
        let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{}", board.file);
    }
}

#[test]
fn each_panel_says_what_it_shows_in_which_unit_and_asks_the_source_that_the_reader_chose() {
    for board in Dashboard::all() {
        let is_source = |variable: &Value| variable["type"] == "datasource" && variable["query"] == "prometheus";
        assert!(board.variables().iter().any(|variable| variable["name"] == "datasource" && is_source(variable)));
        for panel in board.panels() {
            let at = format!("{} of {}", panel["title"], board.file);
            let says = |name: &str| panel[name].as_str().is_some_and(|text| !text.is_empty());
            assert!(says("title"), "{at}: no title");
            assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{at}: no description");
            let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default();
            assert!(UNITS.contains(&unit), "{at}: the unit `{unit}`");
            assert!(!list(panel, "targets").is_empty(), "{at}: no query");
            let targets = list(panel, "targets").iter().chain([panel]);
            for source in targets.map(|asking| &asking["datasource"]) {
                assert_eq!(*source, serde_json::json!({"type": "prometheus", "uid": "${datasource}"}), "{at}");
            }
            let refs: BTreeSet<&str> =
                list(panel, "targets").iter().map(|one| one["refId"].as_str().unwrap()).collect();
            assert_eq!(refs.len(), list(panel, "targets").len(), "{at}: each query has a letter");
        }
    }
}

#[test]
fn no_panel_covers_another_and_the_one_for_the_person_on_call_is_one_screen() {
    for board in Dashboard::all() {
        let places: Vec<_> = board.all_panels().into_iter().map(|panel| (&panel["title"], Place::of(panel))).collect();
        for (number, (title, place)) in places.iter().enumerate() {
            assert!(place.x + place.width <= WIDTH && place.width > 0 && place.height > 0, "{title}: {place:?}");
            for (other, covered) in &places[number + 1..] {
                assert!(!place.overlaps(*covered), "{}: {title} {place:?} covers {other} {covered:?}", board.file);
            }
        }
        if board.uid() == "throughline-on-call" {
            let bottom = places.iter().map(|(_, place)| place.y + place.height).max();
            assert!(bottom <= Some(SCREEN), "{bottom:?}");
        }
    }
}

#[test]
fn queries_and_links_use_variables_that_are_there() {
    for board in Dashboard::all() {
        let known: BTreeSet<&str> = names(&board).into_iter().chain(BUILT_IN).collect();
        let asked = board.variables().iter().filter_map(|variable| variable["query"]["query"].as_str());
        let queries = board.queries();
        let texts = queries.iter().map(|query| query.text.as_str()).chain(asked).chain(urls(&board.json));
        for text in texts {
            for name in variables_in(text) {
                // A field of the row or of the series that was clicked.
                let is_field = ["__field", "__data"].contains(&name) && text.contains(&format!("${{{name}."));
                assert!(known.contains(name) || is_field, "{}: ${name} in {text}", board.file);
            }
        }
        for name in names(&board) {
            assert!(
                board.json.to_string().contains(&format!("${name}"))
                    || board.json.to_string().contains(&format!("${{{name}")),
                "{}: nothing uses {name}",
                board.file
            );
        }
    }
}

#[test]
fn links_lead_to_dashboards_that_are_there_to_traces_and_to_the_runbook() {
    let boards = Dashboard::all();
    let uids: BTreeSet<&str> = boards.iter().map(Dashboard::uid).collect();
    let mut led_to: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for board in &boards {
        for url in urls(&board.json) {
            if let Some(rest) = url.strip_prefix("/d/") {
                let uid = rest.split(['?', '/']).next().unwrap();
                assert!(uids.contains(uid), "{url} of {}", board.file);
                led_to.entry(board.uid()).or_default().insert(uid.to_owned());
            } else if let Some(panes) = url.strip_prefix("/explore?schemaVersion=1&orgId=1&panes=") {
                let panes: Value = serde_json::from_str(&decoded(panes)).unwrap();
                let query = &panes["traces"]["queries"][0];
                assert_eq!(
                    (&panes["traces"]["datasource"], &query["queryType"]),
                    (&"${traces}".into(), &"traceql".into())
                );
                assert_eq!(query["datasource"], serde_json::json!({"type": "tempo", "uid": "${traces}"}));
                assert!(query["query"].as_str().unwrap().starts_with("{ resource.service.name = \"${__"), "{query}");
                led_to.entry(board.uid()).or_default().insert("traces".to_owned());
            } else {
                assert_eq!(url, RUNBOOK, "{}", board.file);
            }
        }
    }
    for (from, to) in led_to {
        assert_eq!(to.len(), 2, "{from} leads to traces and to the other dashboard: {to:?}");
    }
}

#[test]
fn each_alert_says_how_bad_it_is_and_has_a_paragraph_in_the_runbook() {
    let alerts = Alert::all();
    let names: BTreeSet<&str> = alerts.iter().map(|alert| alert.name.as_str()).collect();
    assert!(names.len() == alerts.len() && names.len() >= 10, "{names:?}");
    for alert in &alerts {
        let name = &alert.name;
        assert!(matches!(alert.value("severity"), Some("critical" | "warning")), "{name}");
        assert_eq!(alert.value("component"), Some("messaging"), "{name}: the dashboard asks for it");
        assert!(alert.value("for").is_some() && alert.value("summary").is_some(), "{name}");
        assert!(alert.value("description").is_some(), "{name}");
        let link = format!("{RUNBOOK}#{}", name.to_lowercase());
        assert_eq!(alert.value("runbook_url"), Some(link.as_str()), "{name}");
    }
    let runbook = text("../../docs/src/runbook.md");
    let told: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(told, names, "the headings of the runbook are the alerts");
}

#[test]
fn the_rules_are_tested_to_fire_and_to_be_silent() {
    let tests = text("prometheus/rules_test.yaml");
    for Alert { name, .. } in Alert::all() {
        let cases: Vec<&str> =
            tests.split("alertname: ").skip(1).filter(|case| case.starts_with(&format!("{name}\n"))).collect();
        let fires = |case: &&&str| case.split("eval_time").next().unwrap().contains("exp_alerts");
        assert!(cases.iter().any(|case| fires(&case)), "{name} is not seen to fire");
        assert!(cases.iter().any(|case| !fires(&case)), "{name} is not seen to be silent");
    }
}

#[test]
fn data_sources_lead_to_each_other() {
    let sources = text("grafana/provisioning/datasources/datasources.yaml");
    let values = |key: &str| -> BTreeSet<String> {
        let start = format!("{key}: ");
        let line = |line: &str| line.trim_start().trim_start_matches("- ").strip_prefix(&start).map(ToOwned::to_owned);
        sources.lines().filter_map(line).collect()
    };
    let (known, led_to) = (values("uid"), values("datasourceUid"));
    assert_eq!(led_to, ["loki", "prometheus", "tempo"].map(String::from).into());
    assert!(led_to.is_subset(&known), "{known:?}");
    assert!(queries_of_traces().len() >= 3);
    // What is no variable of the environment has two dollar signs there.
    for (at, _) in sources.match_indices('$') {
        let around = &sources[at.saturating_sub(1)..(at + 2).min(sources.len())];
        assert!(
            around.contains("$$") || sources[..at].lines().last().is_some_and(|line| line.starts_with('#')),
            "{around}"
        );
    }
}
