//! `cargo xtask test`: all tests, those on real brokers and backends too. `cargo xtask interop` is one step of it.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use xtask::servers::{
    BACKENDS, BROKERS, Backend, Broker, Origin, PEERS, Pass, Program, Server, ServerError, ServerErrorKind,
};
use xtask::workspace::{Package, Workspace, cargo};

use crate::ahead;
use crate::args::TestOptions;
use crate::end::End;
use crate::failures::Failures;
use crate::report::{self, Report, StepResult, say};
use crate::step::{self, Finished};
use crate::tally::Tally;

/// Broker tests wait more than they compute.
const BROKER_TEST_THREADS: &str = "--test-threads=6";

/// Integration tests that need all brokers at the same time.
struct OnAllBrokers {
    /// The target, in the workspace and in the examples.
    name: &'static str,
    title: &'static str,
    /// What they need beside servers and backends.
    others: &'static [Program],
}

const TOGETHER: OnAllBrokers = OnAllBrokers { name: "together", title: "tests on all brokers together", others: &[] };
const INTEROP: OnAllBrokers =
    OnAllBrokers { name: "interop", title: "tests with services in other languages", others: PEERS };

/// The only backend that those need.
const COLLECTOR: &str = "collector";

/// The integration tests that look at telemetry in real backends.
const BACKENDS_TARGET: &str = "backends";

pub(crate) fn run(options: &TestOptions) -> Result<End, Box<dyn Error>> {
    run_with(options, |run| run.everything())
}

/// Runs the tests with services in other languages alone.
pub(crate) fn interop(options: &TestOptions) -> Result<End, Box<dyn Error>> {
    run_with(options, |run| match run.find_backends(&[COLLECTOR])? {
        Some(found) => run.on_all_brokers(&found, &[INTEROP]),
        // That is a failure already.
        None => Ok(()),
    })
}

fn run_with(
    options: &TestOptions,
    tests: impl FnOnce(&mut Run<'_>) -> Result<(), Interrupted>,
) -> Result<End, Box<dyn Error>> {
    let workspace = Workspace::load()?;
    let mut run = Run {
        options,
        workspace: &workspace,
        report: Report::new(),
        tally: Tally::default(),
        failures: Failures::default(),
        failed_without_a_test: 0,
        waiting: 0,
    };
    Ok(match tests(&mut run) {
        Ok(()) => run.finish(),
        Err(Interrupted) => End::Interrupted,
    })
}

/// The user pressed Ctrl-C: return, and so drop what runs.
struct Interrupted;

struct Run<'a> {
    options: &'a TestOptions,
    workspace: &'a Workspace,
    report: Report,
    tally: Tally,
    failures: Failures,
    failed_without_a_test: u64,
    /// Ignored tests that no broker has run yet.
    waiting: u64,
}

/// One `cargo test`.
struct Tests<'a> {
    title: String,
    /// Which targets, for cargo.
    select: Vec<String>,
    /// Which tests, for the test programs.
    filter: Vec<&'a str>,
    servers: &'a [Given<'a>],
    /// What they start themselves.
    programs: &'a [Other],
    empty: Empty,
}

/// The variable of a program that is no server, and its path.
type Other = (&'static str, PathBuf);

/// The backends that were found.
#[derive(Default)]
struct Found {
    programs: Vec<Other>,
    /// The names of those that are not here; no package has them.
    missing: Vec<&'static str>,
}

/// What tests are told about a server and what they need beside it.
struct Given<'a> {
    broker: &'a Broker,
    server: &'a Server,
    program: Option<PathBuf>,
    others: &'a [Other],
}

impl Run<'_> {
    fn everything(&mut self) -> Result<(), Interrupted> {
        let TestOptions { brokers, backends, .. } = self.options;
        if !brokers.is_empty() || *backends {
            brokers.iter().try_for_each(|broker| self.broker(broker))?;
            let is_named = |broker: &Broker| brokers.iter().any(|named| named.name == broker.name);
            let on_all: &[OnAllBrokers] = if BROKERS.iter().all(is_named) { &[TOGETHER] } else { &[] };
            return if on_all.is_empty() && !*backends { Ok(()) } else { self.with_backends(on_all, *backends) };
        }
        let ahead = ahead::start();
        let plain = self.cargo_test(&Tests {
            title: "tests without a broker".to_owned(),
            select: Vec::new(),
            filter: Vec::new(),
            servers: &[],
            programs: &[],
            empty: Empty::Allowed,
        })?;
        self.waiting = plain.ignored;
        // A panic in there is no reason to stop: the step that needs the program says what is missing.
        let _ = ahead.join();
        BROKERS.iter().try_for_each(|broker| self.broker(broker))?;
        self.with_backends(&[TOGETHER, INTEROP], true)?;
        if self.waiting > 0 && !self.is_filtered() {
            say(format_args!(
                "note: {} ignored tests belong to no broker or backend that is here and were not run",
                self.waiting
            ));
        }
        Ok(())
    }

    /// All passes of a broker. The first one also runs the examples; the others are for other versions.
    fn broker(&mut self, broker: &Broker) -> Result<(), Interrupted> {
        let mut versions: Vec<String> = Vec::new();
        let others = self.others(broker.name, broker.others)?;
        for pass in broker.passes {
            let Some(server) = self.server(pass)? else {
                continue;
            };
            let version = server.version();
            if versions.iter().any(|known| known == version) {
                let why = StepResult::LeftOut(format!("the tests ran on {version} already"));
                self.report.end(&format!("{} tests", pass.name), Instant::now(), why);
                continue;
            }
            let given = Given::new(broker, pass, &server, &others)?;
            let ran = self.cargo_test(&self.suite(pass, &given))?;
            if versions.is_empty() {
                if let Some(tests) = self.examples(pass, &given) {
                    self.cargo_test(&tests)?;
                }
                self.waiting = self.waiting.saturating_sub(ran.run());
            }
            versions.push(version.to_owned());
        }
        Ok(())
    }

    /// The tests that start backends: some on all brokers, those of the backends, or both.
    fn with_backends(&mut self, on_all: &[OnAllBrokers], backends: bool) -> Result<(), Interrupted> {
        let all: Vec<_> = BACKENDS.iter().map(|backend| backend.name).collect();
        // One that cannot be had is a failure already.
        let Some(found) = self.find_backends(&all)? else { return Ok(()) };
        if !on_all.is_empty() {
            self.on_all_brokers(&found, on_all)?;
        }
        if backends { self.backends(&found) } else { Ok(()) }
    }

    /// The tests that need all brokers at the same time, and look at what arrives in backends.
    fn on_all_brokers(&mut self, found: &Found, targets: &[OnAllBrokers]) -> Result<(), Interrupted> {
        let mut servers = Vec::new();
        for broker in BROKERS {
            let Some(pass) = broker.passes.first() else { continue };
            // One that cannot be had is a failure already.
            let Some(server) = self.server(pass)? else { return Ok(()) };
            servers.push((broker, pass, server));
        }
        let mut given = Vec::new();
        for (broker, pass, server) in &servers {
            given.push(Given::new(broker, pass, server, &[])?);
        }
        for OnAllBrokers { name, title, others } in targets {
            let mut programs = self.others(name, others)?;
            if programs.len() < others.len() {
                continue;
            }
            programs.extend_from_slice(&found.programs);
            let ran = self.cargo_test(&Tests {
                title: (*title).to_owned(),
                select: vec!["--test".to_owned(), (*name).to_owned()],
                filter: vec!["--ignored"],
                servers: &given,
                programs: &programs,
                empty: if self.is_filtered() { Empty::Allowed } else { Empty::Fails },
            })?;
            self.waiting = self.waiting.saturating_sub(ran.run());
        }
        Ok(())
    }

    /// The tests that look at telemetry in real backends, which they start themselves.
    fn backends(&mut self, found: &Found) -> Result<(), Interrupted> {
        let Found { programs, missing } = found;
        let skipped = missing.iter().flat_map(|name| ["--skip", name]);
        let ran = self.cargo_test(&Tests {
            title: "tests on all backends".to_owned(),
            select: vec!["--test".to_owned(), BACKENDS_TARGET.to_owned()],
            filter: ["--ignored"].into_iter().chain(skipped).collect(),
            servers: &[],
            programs,
            empty: if self.is_filtered() { Empty::Allowed } else { Empty::Fails },
        })?;
        self.waiting = self.waiting.saturating_sub(ran.run());
        Ok(())
    }

    /// The programs of these backends. One that cannot be had is a failure, and then there are none; unless no package has it.
    fn find_backends(&mut self, wanted: &[&str]) -> Result<Option<Found>, Interrupted> {
        let (mut found, mut is_complete) = (Found::default(), true);
        let wanted = BACKENDS.iter().filter(|backend| wanted.contains(&backend.name) && backend.url().is_none());
        for Backend { name, url_variable, programs } in wanted {
            if programs.is_empty() {
                let why = format!("no package has it, and {} names none", url_variable.unwrap_or_default());
                self.report.end(&format!("{name} tests"), Instant::now(), StepResult::LeftOut(why));
                found.missing.push(name);
            }
            for program in *programs {
                let title = format!("{name}: find or install {}", program.name);
                let path = self.find(&title, true, program.find, |path| path.display().to_string())?;
                is_complete &= path.is_some();
                found.programs.extend(path.map(|path| (program.variable, path)));
            }
        }
        Ok(is_complete.then_some(found))
    }

    /// The server of a pass. None that is required is a failure.
    fn server(&mut self, pass: &Pass) -> Result<Option<Server>, Interrupted> {
        let title = format!("{}: find or start the server", pass.name);
        self.find(&title, pass.required, pass.start, Server::to_string)
    }

    /// What tests need beside servers. All is required.
    fn others(&mut self, tests: &str, programs: &[Program]) -> Result<Vec<Other>, Interrupted> {
        let mut others = Vec::new();
        for program in programs {
            let title = format!("{tests}: find or install {}", program.name);
            let path = self.find(&title, true, program.find, |path| path.display().to_string())?;
            others.extend(path.map(|path| (program.variable, path)));
        }
        Ok(others)
    }

    /// A step that finds something. What is required and missing is a failure.
    fn find<T>(
        &mut self,
        title: &str,
        required: bool,
        find: fn() -> Result<T, ServerError>,
        shown: impl FnOnce(&T) -> String,
    ) -> Result<Option<T>, Interrupted> {
        let started = self.report.start(title);
        let (found, result) = match find() {
            Ok(found) => {
                let result = StepResult::Passed(shown(&found));
                (Some(found), result)
            }
            Err(error) if error.kind() == ServerErrorKind::Interrupted => return Err(Interrupted),
            Err(error) if !required && error.kind() == ServerErrorKind::Unavailable => {
                (None, StepResult::LeftOut(error.reason()))
            }
            Err(error) => {
                eprintln!("error: {error}");
                self.failed_without_a_test += 1;
                (None, StepResult::Failed(error.reason()))
            }
        };
        self.report.end(title, started, result);
        Ok(found)
    }

    /// The integration tests of a broker: the target that is named like it.
    fn suite<'a>(&self, pass: &Pass, given: &'a Given<'a>) -> Tests<'a> {
        Tests {
            title: format!("{} tests on version {}", pass.name, given.server.version()),
            select: vec!["--test".to_owned(), given.broker.name.to_owned()],
            filter: filter(pass, self.options),
            servers: std::slice::from_ref(given),
            programs: &[],
            empty: if self.is_filtered() { Empty::Allowed } else { Empty::Fails },
        }
    }

    /// The tests of the example programs that have the broker in their name, with the feature that is named like it. Without
    /// that feature those tests are not there, so nothing else runs those that need no server.
    fn examples<'a>(&self, pass: &Pass, given: &'a Given<'a>) -> Option<Tests<'a>> {
        let mut select = example_targets(self.workspace, given.broker);
        let any = !select.is_empty();
        select.extend(example_features(self.workspace, given.broker));
        any.then(|| Tests {
            title: format!("{} tests of the examples", pass.name),
            select,
            filter: vec!["--include-ignored", given.broker.name],
            servers: std::slice::from_ref(given),
            programs: &[],
            empty: Empty::Allowed,
        })
    }

    /// Always the whole workspace, of which targets are selected: fewer packages would mean other features of
    /// the dependencies, and so another build of them.
    fn cargo_test(&mut self, tests: &Tests<'_>) -> Result<Tally, Interrupted> {
        let mut command = Command::new(cargo());
        command
            .current_dir(self.workspace.root())
            .args(["test", "--workspace", "--no-fail-fast"])
            .args(&tests.select)
            .args(&self.options.cargo)
            .arg("--")
            .args(&tests.filter);
        if !tests.servers.is_empty() || !tests.programs.is_empty() {
            command.arg(BROKER_TEST_THREADS);
        }
        tests.servers.iter().for_each(|given| given.to(&mut command));
        command.envs(tests.programs.iter().map(|(variable, path)| (variable, path)));
        command.args(&self.options.tests);
        let started = self.report.start(&tests.title);
        let (tally, judgement) = match step::run(&mut command) {
            Ok(Finished::Interrupted) => return Err(Interrupted),
            Ok(Finished::Ended(status, step::Tests { tally, failures })) => {
                self.failures.add(failures);
                (tally, judge(status.success(), tally, tests.empty))
            }
            Err(error) => (Tally::default(), Err((format!("cargo cannot be run: {error}"), 1))),
        };
        self.tally += tally;
        let result = judgement.map_or_else(
            |(why, without_a_test)| {
                self.failed_without_a_test += without_a_test;
                StepResult::Failed(why)
            },
            StepResult::Passed,
        );
        self.report.end(&tests.title, started, result);
        Ok(tally)
    }

    /// Whether the user picked some of the tests.
    fn is_filtered(&self) -> bool {
        !self.options.cargo.is_empty() || !self.options.tests.is_empty()
    }

    fn finish(mut self) -> End {
        if self.tally.run() == 0 && self.failed_without_a_test == 0 {
            say(format_args!("error: no test ran"));
            self.failed_without_a_test = 1;
        }
        self.report.summary();
        if !self.failures.lines().is_empty() {
            say(format_args!("\nWhat failed tests said first:"));
            self.failures.lines().iter().for_each(|line| say(format_args!("{line}")));
        }
        report::last_line(self.tally, self.failed_without_a_test);
        if self.tally.failed == 0 && self.failed_without_a_test == 0 { End::Succeeded } else { End::Failed }
    }
}

impl<'a> Given<'a> {
    /// Tests that restart a server need a program of their own, also where the server is a container.
    fn new(broker: &'a Broker, pass: &Pass, server: &'a Server, others: &'a [Other]) -> Result<Self, Interrupted> {
        let mut program = server.program().map(PathBuf::from);
        if server.origin() == Origin::Compose {
            program = match (pass.program)() {
                Ok(program) => Some(program),
                Err(error) if error.kind() == ServerErrorKind::Interrupted => {
                    return Err(Interrupted);
                }
                Err(error) => {
                    eprintln!("xtask: no {} program for tests that restart one: {}", broker.name, error.reason());
                    None
                }
            };
        }
        Ok(Self { broker, server, program, others })
    }

    fn to(&self, command: &mut Command) {
        command.env(self.broker.url_variable, self.server.url());
        // Without one, what the user set stays.
        if let Some(program) = &self.program {
            command.env(self.broker.program_variable, program);
        }
        command.envs(self.others.iter().map(|(variable, path)| (variable, path)));
    }
}

/// The tests of a pass. Those that the user names come in place of its own: test programs run what has any of the names.
fn filter(pass: &Pass, options: &TestOptions) -> Vec<&'static str> {
    let names = if options.name_tests() { &[] } else { pass.tests };
    [&["--ignored"], names].concat()
}

/// Whether a run without a test is in order: a missing suite is a failure, a filter that matches none is not.
#[derive(Clone, Copy)]
enum Empty {
    Allowed,
    Fails,
}

/// The detail of a good step, or why it failed and how many failures that adds to those of the tests.
fn judge(success: bool, tally: Tally, empty: Empty) -> Result<String, (String, u64)> {
    match (success, empty) {
        (true, Empty::Fails) if tally.run() == 0 => Err(("no test ran".to_owned(), 1)),
        (true, _) => Ok(format!("{tally}, {} ignored", tally.ignored)),
        (false, _) if tally.failed == 0 => Err((format!("{tally}, and cargo failed; see above"), 1)),
        (false, _) => Err((tally.to_string(), 0)),
    }
}

fn examples(workspace: &Workspace) -> impl Iterator<Item = &Package> {
    let folder = workspace.root().join("examples");
    workspace.packages().iter().filter(move |package| package.folder.starts_with(&folder))
}

/// The features of the example packages that are named like the broker, as arguments for cargo.
fn example_features(workspace: &Workspace, broker: &Broker) -> Vec<String> {
    examples(workspace)
        .filter(|package| package.features.iter().any(|feature| feature == broker.name))
        .flat_map(|package| ["--features".to_owned(), format!("{}/{}", package.name, broker.name)])
        .collect()
}

/// The programs and tests of the example packages, as arguments for cargo; but not the targets that are named
/// like the broker, which run as such, nor those that need all brokers.
fn example_targets(workspace: &Workspace, broker: &Broker) -> Vec<String> {
    examples(workspace)
        .flat_map(|package| &package.targets)
        .filter(|target| target.test && target.name != broker.name && target.name != TOGETHER.name)
        .filter(|target| matches!(target.kind.as_str(), "bin" | "test"))
        .flat_map(|target| [format!("--{}", target.kind), target.name.clone()])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(passed: u64, failed: u64) -> Tally {
        Tally { passed, failed, ignored: 0 }
    }

    #[test]
    fn a_broker_run_without_a_test_fails() {
        assert_eq!(judge(true, tally(0, 0), Empty::Fails), Err(("no test ran".into(), 1)));
        assert!(judge(true, tally(0, 0), Empty::Allowed).is_ok());
        assert!(judge(true, tally(1, 0), Empty::Fails).is_ok());
    }

    #[test]
    fn a_pass_runs_its_tests_unless_the_user_names_others() {
        let pass = Pass { tests: &["golden::", "faults::"], ..BROKERS[0].passes[0] };
        let mut options = TestOptions { tests: vec!["--nocapture".to_owned()], ..TestOptions::default() };
        assert_eq!(filter(&pass, &options), ["--ignored", "golden::", "faults::"]);
        options.cargo.push("restart".to_owned());
        assert_eq!(filter(&pass, &options), ["--ignored"]);
    }

    #[test]
    fn a_failure_is_counted_once() {
        assert_eq!(judge(false, tally(3, 2), Empty::Fails).unwrap_err().1, 0);
        assert_eq!(judge(false, tally(3, 0), Empty::Fails).unwrap_err().1, 1);
    }

    #[test]
    fn the_examples_are_selected_by_target_with_the_feature_of_the_broker() {
        let workspace = Workspace::load().unwrap();
        let targets = example_targets(&workspace, &BROKERS[0]);
        assert!(targets.windows(2).any(|pair| pair == ["--bin", "quickstart"]), "{targets:?}");
        assert!(!targets.iter().any(|target| target == TOGETHER.name), "{targets:?}");
        let nats = BROKERS.iter().find(|broker| broker.name == "nats").unwrap();
        assert_eq!(example_features(&workspace, nats), ["--features", "quickstart/nats"]);
    }
}
