//! `cargo xtask check`: everything that needs no test to run.

mod links;
mod packages;
mod pasted;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::tools;
use xtask::workspace::{Package, Workspace, cargo};

use crate::end::End;
use crate::report::{Report, StepResult, say};
use crate::step::{self, Finished};

/// The configuration is written for this line.
const CARGO_DENY: &str = "^0.20";

/// A step: what it is called, and the command.
struct Check {
    title: String,
    command: Command,
}

/// Runs every step, also after one failed.
pub(crate) fn run() -> Result<End, Box<dyn Error>> {
    let workspace = Workspace::load()?;
    let features = all_features(workspace.packages())?;
    let mut checks = vec![
        Check::cargo("format", &["fmt", "--all", "--check"]),
        Check::cargo(
            "lints",
            &["clippy", "--workspace", "--all-targets", "--features", &features, "--", "--deny", "warnings"],
        ),
    ];
    for package in workspace.packages() {
        checks.extend(feature_checks(package)?);
    }
    checks.push(
        Check::cargo("documentation", &["doc", "--workspace", "--no-deps", "--features", &features])
            .with("RUSTDOCFLAGS", "-D warnings"),
    );
    let mut report = Report::new();
    for mut check in checks {
        check.command.current_dir(workspace.root());
        if matches!(check.run(&mut report), Next::Stop) {
            return Ok(End::Interrupted);
        }
    }
    if matches!(documents(&workspace, &mut report), Next::Stop)
        || matches!(dependencies(&workspace, &mut report), Next::Stop)
    {
        return Ok(End::Interrupted);
    }
    report.summary();
    say(format_args!("\ncheck: {} steps ok, {} failed", report.passed(), report.failed()));
    Ok(if report.failed() == 0 { End::Succeeded } else { End::Failed })
}

enum Next {
    GoOn,
    Stop,
}

impl Check {
    fn cargo(title: impl Into<String>, arguments: &[&str]) -> Self {
        let mut command = Command::new(cargo());
        command.args(arguments);
        Self { title: title.into(), command }
    }

    fn with(mut self, variable: &str, value: &str) -> Self {
        self.command.env(variable, value);
        self
    }

    fn run(&mut self, report: &mut Report) -> Next {
        let started = report.start(&self.title);
        let result = match step::run(&mut self.command) {
            Ok(Finished::Ended(status, _)) if status.success() => StepResult::Passed(String::new()),
            Ok(Finished::Ended(status, _)) => StepResult::Failed(format!("{status}; {}", shown(&self.command))),
            Ok(Finished::Interrupted) => return Next::Stop,
            Err(error) => StepResult::Failed(error.to_string()),
        };
        report.end(&self.title, started, result);
        Next::GoOn
    }
}

/// Every feature that the code of its package asks for, for cargo.
fn all_features(packages: &[Package]) -> std::io::Result<String> {
    let mut all = Vec::new();
    for package in packages {
        all.extend(asked_for(package)?.iter().map(|feature| format!("{}/{feature}", package.name)));
    }
    Ok(all.join(","))
}

/// The features of a package that its code asks for. One that only passes a choice on to a dependency changes nothing of ours, and would
/// build that dependency once more.
fn asked_for(package: &Package) -> std::io::Result<Vec<&str>> {
    if package.features.is_empty() {
        return Ok(Vec::new());
    }
    let code = sources(&package.folder.join("src"))?;
    let is_asked_for = |feature: &&str| code.contains(&format!("feature = \"{feature}\""));
    Ok(package.features.iter().map(String::as_str).filter(is_asked_for).collect())
}

/// The library and the programs of a published package with no feature, and with each alone that its code asks for. What is not published
/// is built with the features that its tests need.
fn feature_checks(package: &Package) -> std::io::Result<Vec<Check>> {
    if package.features.is_empty() || !package.is_published {
        return Ok(Vec::new());
    }
    Ok(checks_with(package, &asked_for(package)?))
}

/// All code in a folder.
fn sources(folder: &Path) -> std::io::Result<String> {
    let mut code = String::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            code += &sources(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            code += &fs::read_to_string(&path)?;
        }
    }
    Ok(code)
}

/// With none of the features, and with each alone. Clippy instead of a plain check: it denies warnings without other compiler flags, which
/// would build every dependency again.
fn checks_with(package: &Package, features: &[&str]) -> Vec<Check> {
    let has = |kind| package.targets.iter().any(|target| target.kind == kind);
    let what: Vec<&str> =
        [("lib", "--lib"), ("bin", "--bins")].iter().filter(|(kind, _)| has(*kind)).map(|(_, flag)| *flag).collect();
    std::iter::once(None)
        .chain(features.iter().copied().map(Some))
        .map(|feature| {
            let title = format!("{} with {}", package.name, feature.unwrap_or("no feature"));
            let mut arguments = vec!["clippy", "--package", &package.name, "--no-default-features"];
            arguments.extend(&what);
            arguments.extend(feature.iter().flat_map(|name| ["--features", name]));
            arguments.extend(["--", "--deny", "warnings"]);
            Check::cargo(title, &arguments)
        })
        .collect()
}

/// What the documents say, and what of them leaves with a package.
fn documents(workspace: &Workspace, report: &mut Report) -> Next {
    let repository = workspace.packages().iter().find_map(|package| package.repository.as_deref()).unwrap_or_default();
    let dead = || links::dead(workspace.root(), repository).unwrap_or_else(|error| vec![error.to_string()]);
    own_step("links", report, dead);
    own_step("files of the packages", report, || packages::missing(workspace));
    for document in pasted::DOCUMENTS {
        let title = format!("the program in {document}, in a new package");
        let next = match pasted::package(workspace, repository, document) {
            Ok(command) => Check { title, command }.run(report),
            Err(error) => {
                own_step(&title, report, || vec![error.to_string()]);
                Next::GoOn
            }
        };
        if matches!(next, Next::Stop) {
            return Next::Stop;
        }
    }
    Next::GoOn
}

/// A step that runs here: a line for each thing that is wrong.
fn own_step(title: &str, report: &mut Report, wrong: impl FnOnce() -> Vec<String>) {
    let started = report.start(title);
    let wrong = wrong();
    wrong.iter().for_each(|line| say(format_args!("error: {line}")));
    let result = match wrong.as_slice() {
        [] => StepResult::Passed(String::new()),
        [line] => StepResult::Failed(line.clone()),
        lines => StepResult::Failed(format!("{} errors, see above", lines.len())),
    };
    report.end(title, started, result);
}

fn dependencies(workspace: &Workspace, report: &mut Report) -> Next {
    let program = match cargo_deny(workspace, report) {
        Ok(program) => program,
        Err(next) => return next,
    };
    let mut command = Command::new(program);
    // A package may be allowed to use a client before it does.
    command
        .args(["--all-features", "check", "--hide-inclusion-graph", "--allow", "unused-wrapper"])
        .args(["bans", "licenses", "sources"])
        .current_dir(workspace.root());
    let mut check = Check { title: "dependencies".to_owned(), command };
    check.run(report)
}

/// `cargo-deny` from the path or the tool folder, installed there when it is in neither.
fn cargo_deny(workspace: &Workspace, report: &mut Report) -> Result<PathBuf, Next> {
    let program = workspace.tools().join("bin").join(format!("cargo-deny{}", std::env::consts::EXE_SUFFIX));
    if let Some(program) = tools::find_on_path("cargo-deny").or_else(|| program.is_file().then(|| program.clone())) {
        return Ok(program);
    }
    eprintln!("xtask: installing cargo-deny with `cargo install` into {} (some minutes)", workspace.tools().display());
    let mut install = Check::cargo(
        "install cargo-deny",
        &["install", "cargo-deny", "--debug", "--locked", "--version", CARGO_DENY, "--root"],
    );
    install.command.arg(workspace.tools());
    match install.run(report) {
        Next::GoOn if program.is_file() => Ok(program),
        next => Err(next),
    }
}

fn shown(command: &Command) -> String {
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or_default();
    format!("`{} {}`", program.to_string_lossy(), arguments.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use xtask::workspace::Target;

    fn package(features: &[&str], kind: &str) -> Package {
        Package {
            name: "throughline".into(),
            folder: PathBuf::new(),
            features: features.iter().map(|&name| name.into()).collect(),
            is_published: true,
            repository: None,
            targets: vec![Target { name: "throughline".into(), kind: kind.into(), test: true }],
        }
    }

    #[test]
    fn every_feature_alone_and_none_is_checked() {
        let checks = checks_with(&package(&["json", "nats"], "lib"), &["json", "nats"]);
        let titles: Vec<_> = checks.iter().map(|check| check.title.as_str()).collect();
        assert_eq!(titles, ["throughline with no feature", "throughline with json", "throughline with nats"]);
        let command = shown(&checks.last().unwrap().command);
        assert!(
            command.ends_with(
                "clippy --package throughline --no-default-features --lib --features nats -- --deny warnings`"
            ),
            "{command}"
        );
    }

    #[test]
    fn a_program_with_features_is_checked_too() {
        let checks = checks_with(&package(&["fast"], "bin"), &["fast"]);
        assert!(shown(&checks.first().unwrap().command).contains("--bins"));
    }

    #[test]
    fn a_package_without_features_needs_no_extra_check() {
        assert!(feature_checks(&package(&[], "lib")).unwrap().is_empty());
        let example = Package { is_published: false, ..package(&["json"], "bin") };
        assert!(feature_checks(&example).unwrap().is_empty());
    }

    #[test]
    fn a_feature_that_only_chooses_for_a_dependency_is_not_checked() {
        let workspace = Workspace::load().unwrap();
        let titles = |name: &str| {
            let package = workspace.packages().iter().find(|package| package.name == name).unwrap();
            let checks = feature_checks(package).unwrap();
            checks.into_iter().map(|check| check.title).collect::<Vec<_>>()
        };
        assert_eq!(titles("throughline-nats"), ["throughline-nats with no feature"]);
        assert_eq!(titles("throughline-core"), ["throughline-core with no feature", "throughline-core with json"]);
        let all = all_features(workspace.packages()).unwrap();
        assert!(all.contains("throughline-core/json") && !all.contains("aws-lc-rs"), "{all}");
    }
}
