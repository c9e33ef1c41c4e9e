//! Runs one cargo command: its output live, its tests counted, everything it started gone afterwards.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use xtask::interrupt;

use crate::failures::Failures;
use crate::tally::Tally;

const POLL: Duration = Duration::from_millis(50);
/// How long cargo and the tests have to end after Ctrl-C, before they are killed.
const GRACE: Duration = Duration::from_secs(3);

/// How a command ended.
pub(crate) enum Finished {
    Ended(ExitStatus, Tests),
    Interrupted,
}

/// The tests that a command ran.
#[derive(Debug, Default)]
pub(crate) struct Tests {
    pub(crate) tally: Tally,
    pub(crate) failures: Failures,
}

/// Runs a command whose output holds `test result:` lines.
pub(crate) fn run(command: &mut Command) -> io::Result<Finished> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut group = Group::spawn(command)?;
    let reader =
        group.child.stdout.take().map(|stdout| thread::spawn(move || pass_on(BufReader::new(stdout), io::stdout())));
    let status = group.wait()?;
    drop(group);
    let tests = reader.map(JoinHandle::join).and_then(Result::ok).unwrap_or_default();
    Ok(status.map_or(Finished::Interrupted, |status| Finished::Ended(status, tests)))
}

/// Prints every line at once and counts.
fn pass_on(mut output: impl BufRead, mut to: impl Write) -> Tests {
    let (mut tests, mut line) = (Tests::default(), Vec::new());
    while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let _ = to.write_all(&line);
        let text = String::from_utf8_lossy(&line);
        tests.tally.read(&text);
        tests.failures.read(&text);
        line.clear();
    }
    let _ = to.flush();
    tests
}

/// A child in a process group of its own, so that what it starts can be ended too: cargo starts test programs,
/// and those start servers. Dropped, nothing of the group is left.
struct Group {
    child: Child,
}

impl Group {
    fn spawn(command: &mut Command) -> io::Result<Self> {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, 0);
        Ok(Self { child: command.spawn()? })
    }

    /// Waits for the end; `None` when the user pressed Ctrl-C.
    fn wait(&mut self) -> io::Result<Option<ExitStatus>> {
        while !interrupt::requested() {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            thread::sleep(POLL);
        }
        self.ask_to_end();
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline && self.child.try_wait()?.is_none() {
            thread::sleep(POLL);
        }
        Ok(None)
    }

    #[cfg(unix)]
    fn ask_to_end(&self) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
    }

    #[cfg(not(unix))]
    fn ask_to_end(&self) {}

    #[cfg(unix)]
    fn signal(&self, signal: nix::sys::signal::Signal) {
        let group = i32::try_from(self.child.id()).map(nix::unistd::Pid::from_raw);
        // A group whose members are all gone is what is wanted.
        let _ = group.map(|group| nix::sys::signal::killpg(group, signal));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        #[cfg(unix)]
        self.signal(nix::sys::signal::Signal::SIGKILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    // Nothing here may print a `test result:` line: it would be counted as one of ours.

    #[test]
    fn output_is_passed_on_unchanged_while_its_tests_are_counted() {
        let output = b"a\xff\ntest result: ok. 4 passed; 0 failed; 2 ignored; 0 measured\nno end of line";
        let mut seen = Vec::new();
        let tests = pass_on(&output[..], &mut seen);
        assert_eq!(tests.tally, Tally { passed: 4, failed: 0, ignored: 2 });
        assert_eq!(seen, output);
    }

    #[test]
    fn the_exit_status_of_a_command_is_returned() {
        let finished = run(Command::new("sh").args(["-c", "exit 7"])).unwrap();
        assert!(matches!(finished, Finished::Ended(status, _) if status.code() == Some(7)));
    }

    #[test]
    fn what_a_command_leaves_running_is_ended() {
        let begun = Instant::now();
        // The one left behind holds the pipe open: reading ends only because it is killed.
        let finished = run(Command::new("sh").args(["-c", "sleep 600 & exit 0"])).unwrap();
        assert!(matches!(finished, Finished::Ended(status, _) if status.success()));
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}
