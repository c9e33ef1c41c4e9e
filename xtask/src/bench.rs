//! `cargo xtask bench`: what a message costs, next to the same by hand.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use xtask::servers::ServerErrorKind;
use xtask::workspace::{Workspace, cargo};

use crate::args::{BenchOptions, BenchWhat};
use crate::end::End;
use crate::report::say;
use crate::step::{self, Finished};

const PACKAGE: &str = "throughline-benches";
/// The page that `--docs` writes the numbers into; the table of `docs/src/cost.md` follows from it.
const PAGE: &str = "docs/src/cost/measurements.md";

/// A target that is missed is said, and is no failure: a benchmark is not a test.
pub(crate) fn run(options: &BenchOptions) -> Result<End, Box<dyn Error>> {
    let workspace = Workspace::load()?;
    let folder = workspace.tools().with_file_name("bench");
    fs::create_dir_all(&folder)?;
    let mut server = None;
    let what = match options.what {
        BenchWhat::Broker(broker) => {
            let Some(pass) = broker.passes.first() else { return Ok(End::Failed) };
            match (pass.start)() {
                Ok(started) => {
                    say(format_args!("{started}"));
                    server = Some((broker.url_variable, started));
                }
                Err(error) if error.kind() == ServerErrorKind::Interrupted => return Ok(End::Interrupted),
                Err(error) => return Err(error.into()),
            }
            broker.name
        }
        BenchWhat::Growth => "growth",
        BenchWhat::Memory => "memory",
    };
    if matches!(options.what, BenchWhat::Memory) {
        let mut count = program(&workspace, "count");
        count.arg(folder.join("allocations.json"));
        match end_of(&mut count)? {
            End::Succeeded => {}
            other => return Ok(other),
        }
    }
    let mut measure = program(&workspace, "measure");
    measure.arg(what).arg("--folder").arg(&folder);
    if let Some(rounds) = &options.rounds {
        measure.args(["--rounds", rounds]);
    }
    if options.docs {
        measure.arg("--docs").arg(workspace.root().join(Path::new(PAGE)));
    }
    if let Some((variable, server)) = &server {
        measure.env(variable, server.url());
    }
    end_of(&mut measure)
}

/// A program of the package, built as a user builds a service.
fn program(workspace: &Workspace, name: &str) -> Command {
    let mut command = Command::new(cargo());
    command.current_dir(workspace.root()).args(["run", "--release", "--quiet", "-p", PACKAGE, "--bin", name, "--"]);
    command
}

fn end_of(command: &mut Command) -> Result<End, Box<dyn Error>> {
    Ok(match step::run(command)? {
        Finished::Ended(status, _) if status.success() => End::Succeeded,
        Finished::Ended(..) => End::Failed,
        Finished::Interrupted => End::Interrupted,
    })
}
