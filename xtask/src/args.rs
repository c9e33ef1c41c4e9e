//! The command line.

use std::error::Error;
use std::fmt;

use xtask::servers::{self, BROKERS, Broker};

pub(crate) const USAGE: &str = "\
The project's own commands.

Usage: cargo xtask COMMAND

Commands:
  check                               format, lints, every feature, documentation, dependencies
  test [--broker NAME]... [--backends] [-- ARGS]
                                      all tests, on real brokers and backends too; with --broker only those of one
                                      broker, with --backends only those that look at telemetry in a real backend;
                                      ARGS go to `cargo test`, and after a second `--` to the test programs
  interop [-- ARGS]                   the tests with services in other languages, on all brokers; part of `test`, too
  bench [--broker NAME | --growth] [--rounds N] [--docs]
                                      what a message costs next to spans by hand, in the process or on a real broker,
                                      or how that grows; written to target/bench, with --docs to the book too
  fuzz [--seconds N]                  every coverage-guided fuzz target, N seconds each (30 when not given)
  server NAME                         start one broker and keep it until Ctrl-C
  help                                this text

Brokers: nats, kafka, rabbit

Each broker is looked for in this order: its address in the environment (such as THROUGHLINE_NATS_URL),
Docker Compose when an engine answers, a local server on a free port (installed when missing).

Backends: collector, jaeger, prometheus, zipkin; tempo where THROUGHLINE_TEMPO_URL names one.
They are installed when missing; THROUGHLINE_JAEGER_URL and THROUGHLINE_ZIPKIN_URL name others.";

/// For how long each target is fuzzed.
const SECONDS: u64 = 30;

/// What the user asked for.
#[derive(Debug)]
pub(crate) enum Request {
    Bench(BenchOptions),
    Check,
    /// For how many seconds each target.
    Fuzz(u64),
    Help,
    /// The tests with services in other languages.
    Interop(TestOptions),
    Server(&'static Broker),
    Test(TestOptions),
}

/// What to measure.
#[derive(Debug, Default)]
pub(crate) struct BenchOptions {
    pub(crate) what: BenchWhat,
    /// How many rounds; the program knows how many are needed.
    pub(crate) rounds: Option<String>,
    /// Whether the numbers go into the guide.
    pub(crate) docs: bool,
}

/// Where messages go while they are measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum BenchWhat {
    Broker(&'static Broker),
    Growth,
    #[default]
    Memory,
}

/// What to test.
#[derive(Debug, Default)]
pub(crate) struct TestOptions {
    /// Only the parts of these; empty for everything.
    pub(crate) brokers: Vec<&'static Broker>,
    /// Only the part of the backends, beside those of the brokers.
    pub(crate) backends: bool,
    /// For `cargo test`.
    pub(crate) cargo: Vec<String>,
    /// For the test programs.
    pub(crate) tests: Vec<String>,
}

impl TestOptions {
    /// Takes what stands behind a `--`: what is for `cargo test`, and behind another one what is for the test programs.
    fn pass_on(&mut self, arguments: impl Iterator<Item = String>) {
        let rest: Vec<String> = arguments.collect();
        let mut parts = rest.splitn(2, |argument| argument == "--");
        self.cargo = parts.next().unwrap_or_default().to_vec();
        self.tests = parts.next().unwrap_or_default().to_vec();
    }

    /// Whether one of the arguments can be part of a test's name.
    pub(crate) fn name_tests(&self) -> bool {
        self.cargo.iter().chain(&self.tests).any(|argument| !argument.starts_with('-'))
    }
}

/// A command line that is not understood.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum ArgumentError {
    Missing(&'static str),
    Unknown(String),
    UnknownBroker(String),
    UnknownCommand(String),
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(what) => write!(f, "{what} is missing"),
            Self::Unknown(argument) => write!(f, "unknown argument `{argument}`"),
            Self::UnknownBroker(name) => {
                let names: Vec<_> = BROKERS.iter().map(|broker| broker.name).collect();
                write!(f, "unknown broker `{name}`; known: {}", names.join(", "))
            }
            Self::UnknownCommand(name) => write!(f, "unknown command `{name}`"),
        }
    }
}

impl Error for ArgumentError {}

pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Request, ArgumentError> {
    let mut arguments = arguments.into_iter();
    let request = match arguments.next().as_deref() {
        None | Some("help" | "--help" | "-h") => Request::Help,
        Some("bench") => return bench(arguments).map(Request::Bench),
        Some("check") => Request::Check,
        Some("fuzz") => return fuzz(arguments).map(Request::Fuzz),
        Some("interop") => return interop(arguments).map(Request::Interop),
        Some("server") => Request::Server(broker(arguments.next())?),
        Some("test") => return test(arguments).map(Request::Test),
        Some(other) => return Err(ArgumentError::UnknownCommand(other.to_owned())),
    };
    arguments.next().map_or(Ok(request), |extra| Err(ArgumentError::Unknown(extra)))
}

fn bench(mut arguments: impl Iterator<Item = String>) -> Result<BenchOptions, ArgumentError> {
    let mut options = BenchOptions::default();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--broker" => match arguments.next() {
                Some(name) if name == "memory" => options.what = BenchWhat::Memory,
                name => options.what = BenchWhat::Broker(broker(name)?),
            },
            "--docs" => options.docs = true,
            "--growth" => options.what = BenchWhat::Growth,
            "--rounds" => {
                let rounds = arguments.next().ok_or(ArgumentError::Missing("the number of rounds"))?;
                if !rounds.parse::<usize>().is_ok_and(|rounds| rounds > 0) {
                    return Err(ArgumentError::Unknown(rounds));
                }
                options.rounds = Some(rounds);
            }
            _ => return Err(ArgumentError::Unknown(argument)),
        }
    }
    Ok(options)
}

fn test(mut arguments: impl Iterator<Item = String>) -> Result<TestOptions, ArgumentError> {
    let mut options = TestOptions::default();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--backends" => options.backends = true,
            "--broker" => options.brokers.push(broker(arguments.next())?),
            "--" => break,
            other => match other.strip_prefix("--broker=") {
                Some(name) => options.brokers.push(broker(Some(name.to_owned()))?),
                None => return Err(ArgumentError::Unknown(argument)),
            },
        }
    }
    options.pass_on(arguments);
    Ok(options)
}

fn interop(mut arguments: impl Iterator<Item = String>) -> Result<TestOptions, ArgumentError> {
    let mut options = TestOptions::default();
    match arguments.next() {
        Some(argument) if argument != "--" => return Err(ArgumentError::Unknown(argument)),
        _ => options.pass_on(arguments),
    }
    Ok(options)
}

fn fuzz(mut arguments: impl Iterator<Item = String>) -> Result<u64, ArgumentError> {
    let mut seconds = SECONDS;
    while let Some(argument) = arguments.next() {
        if argument != "--seconds" {
            return Err(ArgumentError::Unknown(argument));
        }
        let given = arguments.next().ok_or(ArgumentError::Missing("the number of seconds"))?;
        seconds = given.parse().ok().filter(|seconds| *seconds > 0).ok_or(ArgumentError::Unknown(given))?;
    }
    Ok(seconds)
}

fn broker(name: Option<String>) -> Result<&'static Broker, ArgumentError> {
    let name = name.ok_or(ArgumentError::Missing("the name of a broker"))?;
    servers::broker(&name).ok_or(ArgumentError::UnknownBroker(name))
}

#[cfg(test)]
mod tests {
    use xtask::servers::BACKENDS;

    use super::*;

    fn parsed(line: &str) -> Result<Request, ArgumentError> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    fn test_options(line: &str) -> TestOptions {
        match parsed(line) {
            Ok(Request::Test(options)) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_argument_and_help_print_the_usage() {
        for line in ["", "help", "--help", "-h"] {
            assert!(matches!(parsed(line), Ok(Request::Help)), "{line}");
        }
    }

    #[test]
    fn the_usage_names_every_broker_and_every_backend() {
        assert!(BROKERS.iter().all(|broker| USAGE.contains(broker.name)));
        assert!(BACKENDS.iter().all(|backend| USAGE.contains(backend.name)));
    }

    #[test]
    fn test_takes_brokers_and_arguments_for_cargo_and_for_the_tests() {
        let options = test_options("test --broker nats -- jetstream --release -- --nocapture");
        assert_eq!(options.brokers.iter().map(|broker| broker.name).collect::<Vec<_>>(), ["nats"]);
        assert_eq!(options.cargo, ["jetstream", "--release"]);
        assert_eq!(options.tests, ["--nocapture"]);
        assert!(options.name_tests() && test_options("test -- -- golden").name_tests());
        assert!(!test_options("test -- --release -- --nocapture").name_tests());
        assert_eq!(test_options("test --broker=nats").brokers.len(), 1);
        assert!(test_options("test").brokers.is_empty() && !test_options("test").backends);
        assert!(test_options("test --backends --broker nats").backends);
    }

    #[test]
    fn interop_takes_arguments_for_cargo_and_for_the_tests() {
        let Ok(Request::Interop(options)) = parsed("interop -- --release -- rabbit") else { panic!("it is a command") };
        assert_eq!((options.cargo, options.tests), (vec!["--release".to_owned()], vec!["rabbit".to_owned()]));
        assert!(matches!(parsed("interop"), Ok(Request::Interop(options)) if options.cargo.is_empty()));
    }

    #[test]
    fn bench_measures_in_the_process_unless_it_is_told_otherwise() {
        let options = |line: &str| match parsed(line) {
            Ok(Request::Bench(options)) => options,
            other => panic!("{other:?}"),
        };
        for line in ["bench", "bench --broker memory"] {
            assert!(
                matches!(options(line), BenchOptions { what: BenchWhat::Memory, rounds: None, docs: false }),
                "{line}"
            );
        }
        assert!(matches!(options("bench --broker nats").what, BenchWhat::Broker(broker) if broker.name == "nats"));
        let options = options("bench --growth --rounds 3 --docs");
        assert!(matches!(options.what, BenchWhat::Growth) && options.docs);
        assert_eq!(options.rounds.as_deref(), Some("3"));
    }

    #[test]
    fn fuzz_takes_a_number_of_seconds() {
        assert!(matches!(parsed("fuzz"), Ok(Request::Fuzz(SECONDS))));
        assert!(matches!(parsed("fuzz --seconds 5"), Ok(Request::Fuzz(5))));
    }

    #[test]
    fn a_wrong_line_says_what_is_wrong() {
        for (line, expected) in [
            ("test --brokr nats", ArgumentError::Unknown("--brokr".into())),
            ("test --broker", ArgumentError::Missing("the name of a broker")),
            ("bench --rounds none", ArgumentError::Unknown("none".into())),
            ("bench --broker pigeon", ArgumentError::UnknownBroker("pigeon".into())),
            ("server", ArgumentError::Missing("the name of a broker")),
            ("server pigeon", ArgumentError::UnknownBroker("pigeon".into())),
            ("fuzz --seconds", ArgumentError::Missing("the number of seconds")),
            ("fuzz --seconds 0", ArgumentError::Unknown("0".into())),
            ("fuzz baggage", ArgumentError::Unknown("baggage".into())),
            ("interop rabbit", ArgumentError::Unknown("rabbit".into())),
            ("check all", ArgumentError::Unknown("all".into())),
            ("deploy", ArgumentError::UnknownCommand("deploy".into())),
        ] {
            assert_eq!(parsed(line).unwrap_err(), expected, "{line}");
        }
    }
}
