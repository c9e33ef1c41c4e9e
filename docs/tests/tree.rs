//! What the documents say of the tree: the file map, the compiler. `cargo xtask check` follows their links.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Has folders that its row stands for.
const WHOLE: &str = "crates/testing/src/conformance";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_file_map_has_every_room_and_every_file() {
    let design = fs::read_to_string(root().join("DESIGN.md")).unwrap();
    let map = design.split("## File map").nth(1).unwrap();
    let mut said: BTreeSet<String> = BTreeSet::new();
    for row in map.lines().filter(|line| line.starts_with("| `")) {
        let mut names = row.split('`').skip(1).step_by(2);
        let room = names.next().unwrap();
        said.insert(room.to_owned());
        said.extend(names.filter(|name| name.chars().all(is_of_a_name)).map(|name| format!("{room}/{name}.rs")));
    }
    let mut there = BTreeSet::new();
    for sources in ["core", "kafka", "memory", "nats", "rabbit", "export", "waterfall", "cli", "testing", "throughline"]
        .map(|name| format!("crates/{name}/src"))
    {
        collect(&sources, &mut there).unwrap();
    }
    collect("benches/src", &mut there).unwrap();
    collect("docs", &mut there).unwrap();
    collect("examples/across-languages/src", &mut there).unwrap();
    collect("examples/orders/src", &mut there).unwrap();
    collect("examples/quickstart/src", &mut there).unwrap();
    collect("xtask/src", &mut there).unwrap();
    let missing: Vec<_> = there.difference(&said).collect();
    let gone: Vec<_> = said.difference(&there).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "not in the file map of DESIGN.md: {missing:?}; in it but gone: {gone:?}"
    );
}

fn is_of_a_name(sign: char) -> bool {
    sign.is_ascii_lowercase() || sign.is_ascii_digit() || sign == '_'
}

/// Collects the folders with files that the map must have, and these files.
fn collect(folder: &str, there: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(root().join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{folder}/{name}");
        if folder == WHOLE {
            there.insert(folder.to_owned());
        } else if entry.file_type()?.is_dir() {
            collect(&path, there)?;
        } else if name.ends_with(".rs") && !folder.ends_with("/tests") && name != "tests.rs" && name != "testing.rs" {
            there.insert(folder.to_owned());
            if !["lib.rs", "main.rs", "mod.rs"].contains(&name.as_str()) {
                there.insert(path);
            }
        }
    }
    Ok(())
}

#[test]
fn the_files_that_the_life_of_a_message_names_are_there() {
    let design = fs::read_to_string(root().join("DESIGN.md")).unwrap();
    for name in design.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs") && name.contains('/')) {
        let in_core = root().join("crates/core/src").join(name);
        assert!(root().join(name).exists() || in_core.exists(), "DESIGN.md names {name}, which is gone");
    }
}

#[test]
fn the_pictures_of_services_in_other_languages_are_shown_in_the_book_and_compared_by_the_tests() {
    let page = fs::read_to_string(root().join("docs/src/interop.md")).unwrap();
    let files = fs::read_dir(root().join("tests/interop")).unwrap().map(|entry| entry.unwrap().path());
    let tests: String = files.filter(|path| path.is_file()).map(|path| fs::read_to_string(path).unwrap()).collect();
    let names = fs::read_dir(root().join("docs/src/interop")).unwrap().map(|entry| entry.unwrap().file_name());
    for name in names.map(|name| name.into_string().unwrap()) {
        assert!(page.contains(&format!("{{{{#include interop/{name}}}}}")), "the page does not show {name}");
        assert!(tests.contains(&format!("made(\"{name}\")")), "no test compares {name}");
    }
}

#[test]
fn the_readme_names_the_oldest_compiler() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let oldest = format!("The oldest supported compiler is Rust {}.", env!("CARGO_PKG_RUST_VERSION"));
    assert!(readme.contains(&oldest), "`{oldest}` is not in README.md");
}

/// Without a program to run them: no registry of packages has one.
const NOT_RUN: [&str; 1] = ["tempo.yaml"];

#[test]
fn the_configuration_files_of_the_book_are_shown_there_and_run_by_the_tests() {
    let texts = |folder: &str| -> String {
        let files = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.is_file()).map(|path| fs::read_to_string(path).unwrap()).collect()
    };
    let (book, tests) = (texts("docs/src"), texts("tests/backends"));
    let names = fs::read_dir(root().join("docs/src/config")).unwrap().map(|entry| entry.unwrap().file_name());
    let names: BTreeSet<String> = names.map(|name| name.into_string().unwrap()).collect();
    assert!(NOT_RUN.iter().all(|name| names.contains(*name)), "{names:?}");
    for name in names {
        assert!(book.contains(&format!("{{{{#include config/{name}}}}}")), "no page shows {name}");
        let is_run = tests.contains(&format!("docs/src/config/{name}\""));
        assert_ne!(is_run, NOT_RUN.contains(&name.as_str()), "{name} is run by a test: {is_run}");
    }
}
