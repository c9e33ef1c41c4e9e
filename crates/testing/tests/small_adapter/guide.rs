//! Keeps the guide "Writing an adapter" from showing other code than that of these files.

use std::fs;
use std::path::Path;

/// The files of the adapter, in the order in which the guide writes them.
const ADAPTER: [&str; 11] = [
    "semconv",
    "error",
    "connection",
    "subscription",
    "carrier",
    "delivery",
    "subscriber",
    "publisher",
    "broker",
    "extract",
    "instrument",
];

/// A section with the name of a file shows that file, in blocks marked `rs`. A line `// ...` in a block leaves something out.
#[test]
fn the_guide_shows_these_files_as_they_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = fs::read_to_string(root.join("../../docs/src/writing-an-adapter.md")).unwrap();
    let mut shown = Vec::new();
    for section in guide.split("\n### `").skip(1) {
        let (name, text) = section.split_once('`').unwrap();
        let file = fs::read_to_string(root.join(format!("tests/small_adapter/{name}.rs"))).unwrap();
        for block in text.split("\n## ").next().unwrap().split("```rs\n").skip(1) {
            let code = block.split("```").next().unwrap();
            for piece in code.split("// ...\n").map(|piece| piece.trim_start_matches('\n').trim_end()) {
                assert!(file.contains(piece), "the guide shows what is not in {name}.rs:\n{piece}");
            }
            shown.push(name);
        }
    }
    assert_eq!(shown.len(), guide.matches("```rs\n").count(), "a block is not in the section of a file");
    shown.dedup();
    assert!(shown.starts_with(&ADAPTER), "the guide shows {shown:?}");
}
