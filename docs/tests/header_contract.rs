//! The headers of the guide "Header contract" and those in the code are the same.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, reason = "what cannot be read is a failure of the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// How the names of headers begin, or what they are.
const FAMILIES: [&str; 6] = ["x-", "nats-", "retry-", "dead-letter-", "reply-", "uberctx-"];
const NAMES: [&str; 13] = [
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "uber-trace-id",
    "message-id",
    "message_id",
    "correlation-id",
    "correlation_id",
    "reply_to",
    "content-type",
    "cc",
    "bcc",
];

/// Where names that begin so are arguments of queues, and not headers.
const ARGUMENTS: [&str; 3] = ["rabbit/src/subscription", "rabbit/src/topology", "rabbit/src/consumer/copies.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn is_header(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let begins = |start: &&str| lower.starts_with(*start) && lower.len() > start.len();
    NAMES.contains(&&*lower) || (FAMILIES.iter().any(begins) && !text.ends_with('-') && !text.contains(' '))
}

#[test]
fn every_header_in_the_code_is_in_the_contract_and_every_one_there_is_in_the_code() {
    let guide = fs::read_to_string(root().join("docs/src/header-contract.md")).unwrap();
    let (said, mut known) = (said(&guide), BTreeSet::new());
    for name in ["core", "memory", "nats", "kafka", "rabbit"] {
        collect(&root().join(format!("crates/{name}/src")), &mut known);
    }
    assert!(known.contains("traceparent") && known.contains("retry-wait") && known.contains("x-death"), "{known:?}");
    let (missing, gone): (Vec<_>, Vec<_>) = (known.difference(&said).collect(), said.difference(&known).collect());
    assert!(
        missing.is_empty() && gone.is_empty(),
        "not in the contract {missing:#?}; there but not in the code {gone:#?}"
    );
}

/// The names in the first column of tables about headers.
fn said(guide: &str) -> BTreeSet<String> {
    let (mut said, mut of_headers) = (BTreeSet::new(), false);
    for line in guide.lines() {
        let first = line.strip_prefix("| ").and_then(|row| row.split(" |").next());
        match first {
            None => of_headers = false,
            Some("header") => of_headers = true,
            // A name of which the user chooses the end.
            Some(cell) if of_headers && cell.starts_with('`') && !cell.contains('…') => {
                said.insert(cell.trim_matches('`').to_owned());
            }
            Some(_) => {}
        }
    }
    said
}

fn collect(place: &Path, known: &mut BTreeSet<String>) {
    for entry in fs::read_dir(place).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if ARGUMENTS.iter().any(|end| path.ends_with(end)) {
            continue;
        }
        if path.is_dir() {
            if name != "tests" {
                collect(&path, known);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" && name != "testing.rs" {
            let source = fs::read_to_string(&path).unwrap();
            let code = source.split("#[cfg(test)]").next().unwrap();
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            for line in lines {
                // Every second part stands between quotes; no name of a header has one.
                let texts = line.split('"').skip(1).step_by(2);
                // As others spell it.
                let texts = texts.filter(|text| *text != "Content-Type");
                known.extend(texts.filter(|text| is_header(text)).map(str::to_owned));
            }
        }
    }
}
