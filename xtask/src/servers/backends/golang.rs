//! The OpenTelemetry Collector and Jaeger, which is one with a store: built with Go, in one go.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::tools;
use crate::workspace::Workspace;

use super::super::error::{ServerError, ServerErrorKind};
use super::super::install::{INSTALL_WITHIN, attempt, into_folder, named_program, on_path, unavailable};

const COLLECTOR_VARIABLE: &str = "THROUGHLINE_COLLECTOR_SERVER";
const JAEGER_VARIABLE: &str = "THROUGHLINE_JAEGER_SERVER";

const JAEGER_MODULE: &str = "github.com/jaegertracing/jaeger@v1.76.0";
const JAEGER_PROGRAM: &str = "github.com/jaegertracing/jaeger/cmd/jaeger";
/// What is in the folder; a new one for each change of the files below.
const FOLDER: &str = "collector-0.140-zipkin-jaeger-1.76";

/// The files that are built, but for the sums of Jaeger's modules.
const FILES: [(&str, &str); 5] = [
    ("main.go", include_str!("main.go")),
    ("go.mod", include_str!("go.mod")),
    ("elasticsearch/go.mod", "module github.com/elastic/go-elasticsearch/v9\n\ngo 1.25.0\n"),
    ("elasticsearch/client.go", include_str!("elasticsearch/client.go")),
    ("elasticsearch/esapi/esapi.go", include_str!("elasticsearch/esapi.go")),
];
/// What is not among the sums of Jaeger.
const SUMS: &str = include_str!("go.sum");

/// Two thousand packages take their time where others compile, too.
const BUILT_WITHIN: Duration = Duration::from_secs(1800);

const HELP: &str = "\
install Go 1.25 or later, or name the program, then run the command again
  export THROUGHLINE_COLLECTOR_SERVER=/path/to/otelcol
  export THROUGHLINE_JAEGER_SERVER=/path/to/jaeger
or name a Jaeger that runs
  export THROUGHLINE_JAEGER_URL=http://127.0.0.1:16686";

/// Finds the Collector, or builds it.
pub(super) fn collector() -> Result<PathBuf, ServerError> {
    find(COLLECTOR_VARIABLE, "collector")
}

/// Finds Jaeger, or builds it.
pub(super) fn jaeger() -> Result<PathBuf, ServerError> {
    find(JAEGER_VARIABLE, "jaeger")
}

fn find(variable: &str, program: &str) -> Result<PathBuf, ServerError> {
    if let Some(program) = named_program(variable)? {
        return Ok(program);
    }
    let mut tried = vec![format!("{variable} is not set")];
    let folder = attempt(built(&Workspace::load()?), &mut tried)?.ok_or_else(|| {
        ServerError::new(ServerErrorKind::Unavailable, format!("there is no {program} and none could be built"))
            .with_tried(tried)
            .with_help(HELP)
    })?;
    Ok(folder.join(format!("{program}{}", std::env::consts::EXE_SUFFIX)))
}

/// The folder with both programs, built unless it is there already.
fn built(workspace: &Workspace) -> Result<PathBuf, ServerError> {
    let folder = workspace.tools().join(FOLDER);
    if folder.is_dir() {
        return Ok(folder);
    }
    let go = on_path("go")?;
    eprintln!(
        "xtask: building the OpenTelemetry Collector and Jaeger with `go build` into {} (some minutes)",
        folder.display()
    );
    into_folder(&folder, |partial| build(&go, partial))?;
    Ok(folder)
}

fn build(go: &Path, folder: &Path) -> Result<(), ServerError> {
    let sources = folder.join("source");
    fs::create_dir_all(sources.join("elasticsearch/esapi"))?;
    for (name, text) in FILES {
        fs::write(sources.join(name), text)?;
    }
    fs::write(sources.join("go.sum"), sums(go, folder)?)?;
    let mut command = Command::new(go);
    // What is not optimised is compiled in half the time.
    command.args([
        "build",
        "-mod=mod",
        "-trimpath",
        "-buildvcs=false",
        "-gcflags",
        "all=-N -l",
        "-ldflags",
        "-s -w",
        "-o",
    ]);
    command.arg(folder);
    // Without C there is no need of its compiler.
    command.args([".", JAEGER_PROGRAM]).env("CGO_ENABLED", "0").current_dir(sources);
    Ok(tools::run(&mut command, BUILT_WITHIN)?)
}

/// The sums that Jaeger's own module has: some of what it names is no longer known where sums are asked for.
fn sums(go: &Path, folder: &Path) -> Result<String, ServerError> {
    let mut command = Command::new(go);
    let said =
        tools::output(command.args(["mod", "download", "-json", JAEGER_MODULE]).current_dir(folder), INSTALL_WITHIN)?;
    let told: Option<Value> = serde_json::from_str(&said).ok();
    let Some(module) = told.as_ref().and_then(|told| told.get("Dir")?.as_str()) else {
        return Err(unavailable("go mod download: it does not say where the module is"));
    };
    Ok(fs::read_to_string(Path::new(module).join("go.sum"))? + SUMS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_are_those_of_the_jaeger_that_is_built() {
        let [_, (_, module), ..] = FILES;
        assert!(module.contains(&JAEGER_MODULE.replace('@', " ")), "{module}");
    }

    #[test]
    fn what_stands_in_for_a_client_has_the_name_that_the_module_replaces() {
        let [_, (_, module), (_, client), ..] = FILES;
        let name = client.lines().next().unwrap().strip_prefix("module ").unwrap();
        assert!(module.contains(&format!("replace {name} => ./elasticsearch")), "{module}");
    }
}
