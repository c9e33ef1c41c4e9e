//! What failed tests said, to be shown once more at the end: the log of a whole run is long.

/// How many lines of a failed test are kept.
const LINES: usize = 40;

/// How many lines are kept of all failed tests of a command.
const LINES_OF_ALL: usize = 400;

/// The lines that failed tests have printed.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    lines: Vec<String>,
    /// How many lines of the test that is being read are kept.
    of_this: Option<usize>,
}

impl Failures {
    /// Keeps a line of the output of a test program, if a failed test has said it.
    pub(crate) fn read(&mut self, line: &str) {
        let line = line.trim_end();
        if line.starts_with("---- ") && line.ends_with(" ----") {
            self.of_this = Some(0);
        } else if line == "failures:" || line.starts_with("test result: ") {
            self.of_this = None;
        }
        let Some(kept) = self.of_this.as_mut().filter(|kept| **kept < LINES && self.lines.len() < LINES_OF_ALL) else {
            return;
        };
        *kept += 1;
        self.lines.push(line.to_owned());
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.lines.extend(other.lines);
    }

    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_test_said_is_kept_and_nothing_else() {
        let mut failures = Failures::default();
        for line in [
            "test a ... ok",
            "",
            "failures:",
            "",
            "---- b stdout ----",
            "thread 'b' panicked at b.rs:1:1:",
            "one is not two",
            "",
            "failures:",
            "    b",
            "",
            "noise",
        ] {
            failures.read(line);
        }
        let said = ["---- b stdout ----", "thread 'b' panicked at b.rs:1:1:", "one is not two", ""];
        assert_eq!(failures.lines(), said);
    }

    #[test]
    fn of_a_test_that_says_much_the_beginning_is_kept() {
        let mut failures = Failures::default();
        for test in 0..100 {
            failures.read(&format!("---- {test} stdout ----"));
            (0..1000).for_each(|line| failures.read(&line.to_string()));
        }
        assert_eq!(failures.lines().len(), LINES_OF_ALL);
        assert_eq!(failures.lines()[LINES], "---- 1 stdout ----");
    }
}
