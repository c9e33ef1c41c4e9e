//! The tour shows lines that are in the example.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, reason = "what cannot be read is a failure of the test")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the text of all files in a folder with that ending, with the name of each.
fn files(folder: &str, ending: &str) -> Vec<(String, String)> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.extension().is_some_and(|extension| extension == ending));
    files.map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap())).collect()
}

/// Returns the blocks of a page that begin with this line.
fn blocks<'a>(page: &'a str, first: &str) -> Vec<&'a str> {
    let blocks = page.split(first).skip(1);
    blocks.map(|rest| rest.split_once("```").unwrap().0).collect()
}

#[test]
fn each_line_of_code_in_the_tour_is_in_the_example() {
    let sources: Vec<_> =
        ["examples/orders/src", "examples/orders/src/bin"].iter().flat_map(|folder| files(folder, "rs")).collect();
    for (name, page) in files("docs/src/tour", "md") {
        let shown = blocks(&page, "```rust\n");
        assert!(!shown.is_empty(), "{name} shows no code");
        for block in shown {
            assert!(sources.iter().any(|(_, source)| source.contains(block)), "{name}: not in the example:\n{block}");
        }
    }
}

#[test]
fn each_page_of_the_tour_is_in_the_book_and_has_a_picture_where_a_trace_shows_something() {
    let summary = fs::read_to_string(root().join("docs/src/SUMMARY.md")).unwrap();
    let tour = fs::read_to_string(root().join("docs/src/tour.md")).unwrap();
    for (name, page) in files("docs/src/tour", "md") {
        let link = format!("(tour/{})", Path::new(&name).file_name().unwrap().to_str().unwrap());
        assert!(summary.contains(&link) && tour.contains(&link), "no page leads to {name}");
        let has_picture = name.ends_with("stop.md") || !blocks(&page, "```text\n").is_empty();
        assert!(has_picture, "{name} has no picture");
    }
}
