//! What the user sees: a line when a step starts and ends, and a summary.

use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::tally::Tally;

/// The steps of a command, as they happen.
#[derive(Debug)]
pub(crate) struct Report {
    begun: Instant,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    title: String,
    result: StepResult,
    elapsed: Duration,
}

/// How a step ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum StepResult {
    Failed(String),
    LeftOut(String),
    Passed(String),
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), steps: Vec::new() }
    }

    /// Announces a step; the value returned is for [`Report::end`].
    pub(crate) fn start(&self, title: &str) -> Instant {
        say(format_args!("\n==> {title} [{} since the start]", Elapsed(self.begun.elapsed())));
        Instant::now()
    }

    pub(crate) fn end(&mut self, title: &str, started: Instant, result: StepResult) {
        let step = Step { title: title.to_owned(), result, elapsed: started.elapsed() };
        say(format_args!("==> {step}"));
        self.steps.push(step);
    }

    pub(crate) fn passed(&self) -> u64 {
        self.count(|result| matches!(result, StepResult::Passed(_)))
    }

    pub(crate) fn failed(&self) -> u64 {
        self.count(|result| matches!(result, StepResult::Failed(_)))
    }

    /// One line per step.
    pub(crate) fn summary(&self) {
        say(format_args!("\nSummary, {}:", Elapsed(self.begun.elapsed())));
        for step in &self.steps {
            say(format_args!("  {step}"));
        }
    }

    fn count(&self, wanted: impl Fn(&StepResult) -> bool) -> u64 {
        self.steps.iter().map(|step| u64::from(wanted(&step.result))).sum()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, detail) = match &self.result {
            StepResult::Failed(why) => ("FAILED", why),
            StepResult::LeftOut(why) => ("left out", why),
            StepResult::Passed(what) => ("ok", what),
        };
        write!(f, "{word:<8}  {} ({})", self.title, Elapsed(self.elapsed))?;
        if detail.is_empty() { Ok(()) } else { write!(f, ": {detail}") }
    }
}

/// The last line of a test run. A step that failed without a failed test counts as one failure: the line
/// must never say that nothing failed when something did.
pub(crate) fn last_line(tally: Tally, failed_without_a_test: u64) {
    let Tally { passed, failed, .. } = tally;
    say(format_args!("{passed} passed, {} failed", failed + failed_without_a_test));
}

/// Prints a line; a reader that went away is no reason to panic while servers run.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

struct Elapsed(Duration);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            0..60 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            seconds => write!(f, "{} min {:02} s", seconds / 60, seconds % 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_one_line() {
        let step = Step {
            title: "nats".into(),
            result: StepResult::Passed("3 passed, 0 failed".into()),
            elapsed: Duration::from_millis(1250),
        };
        assert_eq!(step.to_string(), "ok        nats (1.2 s): 3 passed, 0 failed");
    }

    #[test]
    fn long_times_are_in_minutes() {
        assert_eq!(Elapsed(Duration::from_secs(125)).to_string(), "2 min 05 s");
    }

    #[test]
    fn steps_are_counted_by_result() {
        let results =
            [StepResult::Passed(String::new()), StepResult::Failed(String::new()), StepResult::LeftOut(String::new())];
        let step = |result| Step { title: String::new(), result, elapsed: Duration::ZERO };
        let report = Report { begun: Instant::now(), steps: results.map(step).into() };
        assert_eq!((report.passed(), report.failed()), (1, 1));
    }
}
