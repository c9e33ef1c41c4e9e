//! `cargo xtask fuzz`: every coverage-guided target of `fuzz/` for a bounded time.
//!
//! Built with the stable compiler: the targets are instrumented for coverage, and without a sanitizer, since the workspace has no
//! unsafe code. What was learned stays in the tool folder, so that the next run goes on from there.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::tools;
use xtask::workspace::{Workspace, cargo};

use crate::end::End;
use crate::report::{Report, StepResult, say};
use crate::step::{self, Finished};

const CARGO_FUZZ: &str = "^0.13";

/// How long one input may take before it counts as a hang.
const HANG: &str = "-timeout=10";

/// What the fuzzer says at its end, before the number of inputs that it tried.
const EXECUTED: &str = "stat::number_of_executed_units:";

/// How many lines of a failed run are shown.
const SHOWN: usize = 60;

pub(crate) fn run(seconds: u64) -> Result<End, Box<dyn Error>> {
    let workspace = Workspace::load()?;
    let mut fuzz = Fuzz { workspace: &workspace, report: Report::new(), executions: 0 };
    let Some(program) = fuzz.cargo_fuzz()? else { return Ok(fuzz.finish()) };
    if ["c++", "g++", "clang++"].iter().all(|name| tools::find_on_path(name).is_none())
        && std::env::var_os("CXX").is_none()
    {
        return Err(
            "fuzzing needs a C++ compiler, for libFuzzer: install one (`apt-get install g++`) or set CXX".into()
        );
    }
    let mut build = fuzz.command(&program, "build");
    if fuzz.step("build the fuzz targets", &mut build, String::new)? {
        for target in targets(workspace.root())? {
            if xtask::interrupt::requested() {
                return Ok(End::Interrupted);
            }
            fuzz.target(&program, &target, seconds)?;
        }
    }
    Ok(fuzz.finish())
}

struct Fuzz<'a> {
    workspace: &'a Workspace,
    report: Report,
    executions: u64,
}

impl Fuzz<'_> {
    /// `cargo-fuzz` from the path or the tool folder, installed there when it is in neither; `None` when that fails.
    fn cargo_fuzz(&mut self) -> io::Result<Option<PathBuf>> {
        let program = self.workspace.tools().join("bin").join(format!("cargo-fuzz{}", std::env::consts::EXE_SUFFIX));
        if let Some(found) = tools::find_on_path("cargo-fuzz").or_else(|| program.is_file().then(|| program.clone())) {
            return Ok(Some(found));
        }
        let mut install = Command::new(cargo());
        install.args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ, "--root"]);
        install.arg(self.workspace.tools());
        let installed = self.step("install cargo-fuzz", &mut install, String::new)?;
        Ok((installed && program.is_file()).then_some(program))
    }

    fn command(&self, program: &Path, what: &str) -> Command {
        let mut command = Command::new(program);
        command
            .args(["fuzz", what, "--sanitizer", "none", "--fuzz-dir"])
            .arg(self.workspace.root().join("fuzz"))
            .current_dir(self.workspace.root())
            .env("CARGO_TARGET_DIR", self.workspace.tools().join("fuzz"));
        command
    }

    /// Runs one target; what it says goes to a file, of which a failed run shows the end.
    fn target(&mut self, program: &Path, target: &str, seconds: u64) -> io::Result<()> {
        let corpus = self.workspace.tools().join("fuzz-corpus").join(target);
        fs::create_dir_all(&corpus)?;
        let log = self.workspace.tools().join(format!("fuzz-{target}.log"));
        let mut command = self.command(program, "run");
        command
            .arg(target)
            .arg(&corpus)
            .arg(self.workspace.root().join("fuzz/seeds").join(target))
            .args(["--", HANG, "-print_final_stats=1", &format!("-max_total_time={seconds}")])
            .stderr(File::create(&log)?);
        let said = || fs::read(&log).map(|said| String::from_utf8_lossy(&said).into_owned()).unwrap_or_default();
        let passed = self.step(&format!("fuzz {target} for {seconds} s"), &mut command, || {
            format!("{} inputs, no finding", executed(&said()))
        })?;
        let said = said();
        self.executions += executed(&said);
        if !passed {
            let lines: Vec<&str> = said.lines().collect();
            lines.iter().skip(lines.len().saturating_sub(SHOWN)).for_each(|line| say(format_args!("{line}")));
        }
        Ok(())
    }

    /// Runs a command as a step of the report; returns whether it ended well.
    fn step(&mut self, title: &str, command: &mut Command, detail: impl Fn() -> String) -> io::Result<bool> {
        let started = self.report.start(title);
        let result = match step::run(command)? {
            Finished::Ended(status, _) if status.success() => StepResult::Passed(detail()),
            Finished::Ended(status, _) => StepResult::Failed(format!("{status}; what was found is in fuzz/artifacts")),
            Finished::Interrupted => StepResult::LeftOut("interrupted".to_owned()),
        };
        let passed = matches!(result, StepResult::Passed(_));
        self.report.end(title, started, result);
        Ok(passed)
    }

    fn finish(self) -> End {
        if xtask::interrupt::requested() {
            return End::Interrupted;
        }
        self.report.summary();
        say(format_args!("\nfuzz: {} inputs, {} steps failed", self.executions, self.report.failed()));
        if self.report.failed() == 0 { End::Succeeded } else { End::Failed }
    }
}

/// The names of the targets, sorted.
fn targets(root: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join("fuzz/fuzz_targets"))? {
        names.extend(entry?.path().file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Returns how many inputs a run tried.
fn executed(said: &str) -> u64 {
    let line = said.lines().rev().find_map(|line| line.strip_prefix(EXECUTED));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_inputs_is_read_from_what_the_fuzzer_says() {
        assert_eq!(executed("Done 7 runs\nstat::number_of_executed_units: 4711\nstat::average_exec_per_sec: 5"), 4711);
        assert_eq!(executed("ERROR: libFuzzer: deadly signal"), 0);
    }

    #[test]
    fn every_target_is_declared_and_has_seeds() {
        let workspace = Workspace::load().unwrap();
        let manifest = fs::read_to_string(workspace.root().join("fuzz/Cargo.toml")).unwrap();
        let names = targets(workspace.root()).unwrap();
        assert_eq!(manifest.matches("[[bin]]").count(), names.len());
        for name in names {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            assert!(fs::read_dir(workspace.root().join("fuzz/seeds").join(&name)).unwrap().next().is_some(), "{name}");
        }
    }
}
