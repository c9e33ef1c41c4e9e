//! The tables of the guide "Logs" and the lines in the code are the same.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, reason = "what cannot be read is a failure of the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Level and text of a line. What differs from one to the next is `…` in it.
type Line = (String, String);

const MACROS: [(&str, &str); 6] = [
    ("log_line!(", ""),
    ("error!(", "ERROR"),
    ("warn!(", "WARN"),
    ("info!(", "INFO"),
    ("debug!(", "DEBUG"),
    ("trace!(", "TRACE"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn every_line_of_the_log_is_in_the_guide_and_every_one_there_is_logged() {
    let guide = fs::read_to_string(root().join("docs/src/logs.md")).unwrap();
    for name in ["core", "nats", "kafka", "rabbit", "export"] {
        let heading = format!("`throughline_{name}`\n");
        let section = guide
            .split("\n## ")
            .find(|section| section.lines().next().is_some_and(|l| heading.starts_with(l.rsplit(' ').next().unwrap())));
        let said = rows(section.unwrap_or_else(|| panic!("no section about {name}")));
        let mut logged = BTreeSet::new();
        collect(&root().join(format!("crates/{name}/src")), &mut logged);
        assert!(!logged.is_empty());
        let (missing, gone): (Vec<_>, Vec<_>) =
            (logged.difference(&said).collect(), said.difference(&logged).collect());
        assert!(
            missing.is_empty() && gone.is_empty(),
            "{name}: not in the guide {missing:#?}; there but not logged {gone:#?}"
        );
    }
    let mut others = BTreeSet::new();
    collect(&root().join("crates/memory/src"), &mut others);
    assert!(others.is_empty(), "no section is about {others:?}");
}

fn rows(section: &str) -> BTreeSet<Line> {
    let rows =
        section.lines().filter(|row| row.starts_with("| ") && !row.starts_with("| level") && !row.starts_with("| ---"));
    rows.map(|row| {
        let mut cells = row.split('|').map(|cell| cell.trim().to_owned()).skip(1);
        (cells.next().unwrap(), cells.next().unwrap())
    })
    .collect()
}

fn collect(folder: &Path, lines: &mut BTreeSet<Line>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" {
                collect(&path, lines);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" && name != "testing.rs" {
            let source = fs::read_to_string(&path).unwrap();
            let code = source.split("#[cfg(test)]").next().unwrap();
            let code: String =
                code.lines().filter(|line| !line.trim_start().starts_with("//")).map(|l| format!("{l}\n")).collect();
            of_code(&code, lines);
        }
    }
}

fn of_code(code: &str, lines: &mut BTreeSet<Line>) {
    for (name, level) in MACROS {
        for (at, _) in code.match_indices(name) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|sign| sign.is_alphanumeric() || sign == '_') {
                continue;
            }
            let (call, text) = call(&code[at + name.len()..]);
            let level = if level.is_empty() { call.split(',').nth(1).unwrap().trim() } else { level };
            lines.insert((level.to_owned(), shown(&text)));
        }
    }
}

/// What stands between the brackets of a call, and the last text in it.
fn call(code: &str) -> (&str, String) {
    let (mut depth, mut text, mut last, mut in_text) = (1, String::new(), String::new(), false);
    let mut signs = code.char_indices();
    while let Some((at, sign)) = signs.next() {
        match sign {
            '\\' if in_text => {
                text.push(sign);
                text.extend(signs.next().map(|(_, escaped)| escaped));
            }
            '"' if in_text => {
                in_text = false;
                last = std::mem::take(&mut text);
            }
            '"' => in_text = true,
            _ if in_text => text.push(sign),
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (&code[..at], last);
        }
    }
    panic!("a call without an end: {code}");
}

/// A text as it is logged, with `…` for what is put in.
fn shown(text: &str) -> String {
    let parts: Vec<&str> = text.split("\\\n").collect();
    let joined: String =
        parts.iter().enumerate().map(|(number, part)| if number == 0 { part } else { part.trim_start() }).collect();
    let mut shown = String::new();
    for part in joined.split('}') {
        match part.split_once('{') {
            Some((before, _)) => shown.push_str(&format!("{before}…")),
            None => shown.push_str(part),
        }
    }
    shown
}
