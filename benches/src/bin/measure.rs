//! Measures, prints the table and writes it as JSON.
//!
//! `cargo xtask bench` runs it: `measure WHAT --folder FOLDER [--rounds N] [--docs FILE]`.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use throughline_benches::report::{Report, replace_block};
use throughline_benches::rounds::Rounds;
use throughline_benches::summary::summary;
use throughline_benches::{growth, kafka, memory, nats, rabbit};

const USAGE: &str = "usage: measure memory|nats|kafka|rabbit|growth --folder FOLDER [--rounds N] [--docs FILE]";

/// Where the servers are.
const NATS: &str = "THROUGHLINE_NATS_URL";
const KAFKA: &str = "THROUGHLINE_KAFKA_URL";
const RABBIT: &str = "THROUGHLINE_RABBIT_URL";

struct Options {
    what: String,
    folder: PathBuf,
    rounds: Option<usize>,
    docs: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let Some((kafka::BACKLOG, rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        println!("{}", kafka::backlog(&url(KAFKA)?, rest)?);
        return Ok(());
    }
    let options = options(arguments)?;
    match options.what.as_str() {
        "growth" => {
            let pictures = options.docs.as_deref().and_then(Path::parent);
            let growth = growth::measure(options.rounds.unwrap_or(9));
            growth.draw(pictures.unwrap_or(&options.folder))?;
            println!("{}", growth.markdown());
            fs::write(options.folder.join("growth.json"), serde_json::to_string_pretty(&growth.json())?)?;
            put(&options, &options.what, &growth.markdown())
        }
        "memory" => {
            let counts: Value = serde_json::from_slice(&fs::read(options.folder.join("allocations.json"))?)?;
            let rounds = Rounds { rounds: options.rounds.unwrap_or(51), messages: 1000 };
            write(&memory::measure(rounds, &counts), &options)
        }
        "nats" => {
            let report = nats::measure(&url(NATS)?, options.rounds.unwrap_or(9))?;
            write(&report, &options)
        }
        "kafka" => {
            let url = url(KAFKA)?;
            let backlogs = kafka::measure_backlogs(&url)?;
            println!("{}", backlogs.markdown());
            fs::write(options.folder.join("kafka-memory.json"), serde_json::to_string_pretty(&backlogs.json())?)?;
            put(&options, "kafka-memory", &backlogs.markdown())?;
            write(&kafka::measure(&url, options.rounds.unwrap_or(9))?, &options)
        }
        "rabbit" => {
            let report = rabbit::measure(&url(RABBIT)?, options.rounds.unwrap_or(9))?;
            write(&report, &options)
        }
        _ => Err(USAGE.into()),
    }
}

fn url(variable: &str) -> Result<String, String> {
    env::var(variable).map_err(|_| format!("{variable} does not say where the server is"))
}

fn options(arguments: Vec<String>) -> Result<Options, Box<dyn Error>> {
    let mut arguments = arguments.into_iter();
    let what = arguments.next().ok_or(USAGE)?;
    let mut options = Options { what, folder: PathBuf::from("."), rounds: None, docs: None };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(USAGE)?;
        match name.as_str() {
            "--folder" => options.folder = value.into(),
            "--rounds" => options.rounds = Some(value.parse()?),
            "--docs" => options.docs = Some(value.into()),
            _ => return Err(USAGE.into()),
        }
    }
    Ok(options)
}

fn write(report: &Report, options: &Options) -> Result<(), Box<dyn Error>> {
    println!("{}", report.text());
    let file = options.folder.join(format!("{}.json", options.what));
    fs::write(&file, serde_json::to_string_pretty(&report.json())?)?;
    println!("Written to {}.", file.display());
    put(options, &options.what, &report.markdown())
}

/// Writes into the page of measurements, where that is asked for, and the table of the page it belongs to.
fn put(options: &Options, block: &str, text: &str) -> Result<(), Box<dyn Error>> {
    let Some(docs) = &options.docs else { return Ok(()) };
    let measurements = replace_block(&fs::read_to_string(docs)?, block, text)?;
    fs::write(docs, &measurements)?;
    // `cost.md` beside the folder `cost`.
    let guide = docs.parent().ok_or("the page has no folder")?.with_extension("md");
    fs::write(&guide, replace_block(&fs::read_to_string(&guide)?, "summary", &summary(&measurements))?)?;
    Ok(())
}
