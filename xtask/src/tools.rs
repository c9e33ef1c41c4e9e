//! Other programs: found on the path, run with a time limit.
//!
//! Everything here gives up early when the user pressed Ctrl-C, see [`interrupt`].

use std::error::Error;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::interrupt;

/// How often a waiting loop looks again.
pub(crate) const POLL: Duration = Duration::from_millis(25);

/// The first program of this name in the folders of `PATH`.
///
/// # Examples
///
/// ```
/// assert!(xtask::tools::find_on_path("no such program").is_none());
/// ```
#[must_use]
pub fn find_on_path(program: &str) -> Option<PathBuf> {
    let file = format!("{program}{}", std::env::consts::EXE_SUFFIX);
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(&file)).find(|candidate| is_program(candidate))
}

/// Runs a program to its end; what it prints goes to standard error.
///
/// # Errors
///
/// When it cannot be started, fails, outlives `limit` (it is killed then), or Ctrl-C was pressed.
///
/// # Examples
///
/// ```
/// use std::process::Command;
/// use std::time::Duration;
///
/// xtask::tools::run(Command::new("cargo").arg("--version"), Duration::from_secs(60))?;
/// # Ok::<(), xtask::tools::ToolError>(())
/// ```
pub fn run(command: &mut Command, limit: Duration) -> Result<(), ToolError> {
    command.stdin(Stdio::null()).stdout(io::stderr());
    let mut child = spawn(command)?;
    check(command, wait(command, &mut child, limit, interrupt::requested)?, "")
}

/// As [`run`], but Ctrl-C does not end it: for what has to be done after Ctrl-C.
pub(crate) fn run_to_the_end(command: &mut Command, limit: Duration) -> Result<(), ToolError> {
    command.stdin(Stdio::null()).stdout(io::stderr());
    let mut child = spawn(command)?;
    check(command, wait(command, &mut child, limit, || false)?, "")
}

/// Runs a program to its end and returns what it printed on standard output.
///
/// # Errors
///
/// As [`run`]; the error then also has the last line of standard error.
///
/// # Examples
///
/// ```
/// use std::process::Command;
/// use std::time::Duration;
///
/// let version = xtask::tools::output(Command::new("cargo").arg("--version"), Duration::from_secs(60))?;
/// assert!(version.starts_with("cargo "));
/// # Ok::<(), xtask::tools::ToolError>(())
/// ```
pub fn output(command: &mut Command, limit: Duration) -> Result<String, ToolError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command)?;
    let stdout = child.stdout.take().map(read_in_background);
    let stderr = child.stderr.take().map(read_in_background);
    let status = wait(command, &mut child, limit, interrupt::requested)?;
    let stderr = collect(stderr);
    check(command, status, stderr.lines().last().unwrap_or_default())?;
    Ok(collect(stdout))
}

/// A program that could not be run to a good end.
///
/// # Examples
///
/// ```
/// use std::process::Command;
/// use std::time::Duration;
/// use xtask::tools::{self, ToolErrorKind};
///
/// let error = tools::run(&mut Command::new("no-such-program"), Duration::from_secs(1)).unwrap_err();
/// assert_eq!(error.kind(), ToolErrorKind::NotStarted);
/// ```
#[derive(Debug)]
pub struct ToolError {
    program: String,
    kind: ToolErrorKind,
    detail: String,
    source: Option<io::Error>,
}

/// What went wrong with a program.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ToolErrorKind {
    /// It ended with a failure.
    Failed,
    /// The user pressed Ctrl-C.
    Interrupted,
    /// It could not be started.
    NotStarted,
    /// It took too long and was killed.
    TimedOut,
}

impl ToolError {
    fn new(command: &Command, kind: ToolErrorKind, detail: impl Into<String>) -> Self {
        let program = command.get_program().to_string_lossy().into_owned();
        let first = command.get_args().next().map(|argument| argument.to_string_lossy().into_owned());
        let program =
            Path::new(&program).file_name().map_or(program.clone(), |name| name.to_string_lossy().into_owned());
        let program = first.map_or(program.clone(), |argument| format!("{program} {argument}"));
        Self { program, kind, detail: detail.into(), source: None }
    }

    fn with_source(mut self, source: io::Error) -> Self {
        self.source = Some(source);
        self
    }

    /// What went wrong.
    ///
    /// # Examples
    ///
    /// See [`ToolError`].
    #[must_use]
    pub fn kind(&self) -> ToolErrorKind {
        self.kind
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = &self.program;
        match self.kind {
            ToolErrorKind::Failed => write!(f, "`{program}` failed")?,
            ToolErrorKind::Interrupted => write!(f, "`{program}` was interrupted")?,
            ToolErrorKind::NotStarted => write!(f, "`{program}` could not be started")?,
            ToolErrorKind::TimedOut => write!(f, "`{program}` took too long")?,
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

impl Error for ToolError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

fn is_program(path: &Path) -> bool {
    let Ok(metadata) = path.metadata() else {
        return false;
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
    }
    #[cfg(not(unix))]
    metadata.is_file()
}

fn spawn(command: &mut Command) -> Result<Child, ToolError> {
    command
        .spawn()
        .map_err(|error| ToolError::new(command, ToolErrorKind::NotStarted, error.to_string()).with_source(error))
}

fn wait(
    command: &Command,
    child: &mut Child,
    limit: Duration,
    interrupted: fn() -> bool,
) -> Result<ExitStatus, ToolError> {
    let deadline = Instant::now() + limit;
    let (kind, detail) = loop {
        match child.try_wait() {
            Ok(_) if interrupted() => break (ToolErrorKind::Interrupted, String::new()),
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() >= deadline => {
                break (ToolErrorKind::TimedOut, format!("more than {} s", limit.as_secs()));
            }
            Ok(None) => thread::sleep(POLL),
            Err(error) => break (ToolErrorKind::Failed, error.to_string()),
        }
    };
    stop(child);
    Err(ToolError::new(command, kind, detail))
}

fn check(command: &Command, status: ExitStatus, last_line: &str) -> Result<(), ToolError> {
    if status.success() {
        return Ok(());
    }
    let detail = if last_line.is_empty() { status.to_string() } else { format!("{status}, {last_line}") };
    Err(ToolError::new(command, ToolErrorKind::Failed, detail))
}

/// Kills a child by its id and waits until it is gone. One that ended by itself is no error.
pub(crate) fn stop(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Asks a process to end, as `kill` does without options. Where there are no signals, it does nothing.
///
/// # Examples
///
/// ```
/// # #[cfg(unix)] {
/// let mut child = std::process::Command::new("sleep").arg("60").spawn()?;
/// xtask::tools::ask_to_stop(child.id());
/// assert!(!child.wait()?.success());
/// # }
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn ask_to_stop(process: u32) {
    #[cfg(unix)]
    if let Ok(id) = i32::try_from(process) {
        use nix::sys::signal::{Signal, kill};
        use nix::unistd::Pid;
        // One that has ended needs no signal.
        let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
    }
    #[cfg(not(unix))]
    let _ = process;
}

fn read_in_background(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

fn collect(reader: Option<thread::JoinHandle<Vec<u8>>>) -> String {
    let bytes = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_on_the_path_is_found() {
        assert!(find_on_path("cargo").is_some_and(|path| path.is_absolute()));
    }

    #[cfg(unix)]
    #[test]
    fn a_program_that_takes_too_long_is_killed() {
        let error = run(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ToolErrorKind::TimedOut);
        assert_eq!(error.to_string(), "`sleep 60` took too long: more than 0 s");
    }

    #[cfg(unix)]
    #[test]
    fn a_failure_keeps_the_last_line_of_standard_error() {
        let error =
            output(Command::new("sh").args(["-c", "echo why >&2; exit 3"]), Duration::from_secs(10)).unwrap_err();
        assert_eq!(error.kind(), ToolErrorKind::Failed);
        assert!(error.to_string().ends_with("why"), "{error}");
    }
}
