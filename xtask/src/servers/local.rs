//! A server process on this machine: loopback only, a free port, fresh data.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, id};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::interrupt;
use crate::tools::{POLL, stop};

use super::error::{ServerError, ServerErrorKind};

/// A free port can be taken by someone else before the server has it.
const ATTEMPTS: u32 = 3;
/// A server on the JVM takes its time where many tests run.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Processes that a server started can outlive it for a moment, and still write.
const REMOVED_WITHIN: Duration = Duration::from_secs(5);
/// How often ports in a row are looked for.
const SEARCHES: u32 = 100;
/// How much of a server's log an error shows: a stack trace does not fill it.
const LAST_LINES: usize = 15;

/// A running server process. Dropped, it is killed and waited for, and then its data is removed: in the
/// order of the fields.
#[derive(Debug)]
pub(super) struct Process {
    child: Running,
    _data: Folder,
}

/// Returns the arguments, from the address to listen on and the data folder, which it may fill first.
pub(super) type Prepare<'a> = dyn Fn(SocketAddr, &Path) -> Result<Vec<OsString>, ServerError> + 'a;

/// How to start a server.
pub(super) struct Start<'a> {
    pub(super) name: &'static str,
    pub(super) program: &'a Path,
    /// How many ports in a row it listens on, from that of its address.
    pub(super) ports: u16,
    pub(super) prepare: &'a Prepare<'a>,
}

impl Process {
    /// Starts a server and waits until `probe` accepts it; returns what the probe learned.
    pub(super) fn start<T>(
        start: &Start<'_>,
        probe: impl Fn(SocketAddr) -> io::Result<T>,
    ) -> Result<(Self, SocketAddr, T), ServerError> {
        let mut attempt = 1;
        loop {
            match Self::attempt(start, &probe) {
                Err(error) if error.kind() == ServerErrorKind::NotReady && attempt < ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    fn attempt<T>(
        start: &Start<'_>,
        probe: &impl Fn(SocketAddr) -> io::Result<T>,
    ) -> Result<(Self, SocketAddr, T), ServerError> {
        let data = Folder::create(start.name)?;
        let address = free_addresses(start.ports)?;
        let log = data.path().join("server.log");
        let output = File::create(&log)?;
        let mut command = Command::new(start.program);
        // In a group of its own: who uses it ends first after a Ctrl-C in the terminal, and then it is stopped.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command
            .args((start.prepare)(address, data.path())?)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| failed(start, &format!("cannot be started: {error}")).with_source(error))?;
        let mut process = Self { child: Running(child), _data: data };
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if interrupt::requested() {
                return Err(ServerError::interrupted());
            }
            let answer = probe(address);
            if !process.is_running() {
                return Err(failed(start, &format!("ended at once; it said: {}", last_lines(&log))));
            }
            match answer {
                Ok(learned) => return Ok((process, address, learned)),
                Err(_) if Instant::now() < deadline => thread::sleep(POLL),
                Err(error) => {
                    let seconds = READY_WITHIN.as_secs();
                    return Err(failed(
                        start,
                        &format!("was not ready after {seconds} s ({error}); it said: {}", last_lines(&log)),
                    ));
                }
            }
        }
    }

    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.child.0.try_wait(), Ok(None))
    }
}

/// A child that does not outlive this value.
#[derive(Debug)]
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        stop(&mut self.0);
    }
}

/// A new folder for temporary data, removed when dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn create(name: &str) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let started = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_micros();
        let path = std::env::temp_dir().join(format!("throughline-{name}-{}-{started}-{number}", id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let deadline = Instant::now() + REMOVED_WITHIN;
        while let Err(error) = fs::remove_dir_all(&self.0) {
            if Instant::now() >= deadline {
                eprintln!("xtask: the folder {} is left behind: {error}", self.0.display());
                return;
            }
            thread::sleep(POLL);
        }
    }
}

/// A loopback address with a port that is free now.
pub(super) fn free_address() -> io::Result<SocketAddr> {
    free_addresses(1)
}

/// As [`free_address`], the first of this many ports in a row.
fn free_addresses(ports: u16) -> io::Result<SocketAddr> {
    let mut search = 1;
    loop {
        match in_a_row(ports) {
            Ok((first, _)) => return first.local_addr(),
            Err(_) if search < SEARCHES => search += 1,
            Err(error) => return Err(error),
        }
    }
}

/// A free port and those above it, all taken.
fn in_a_row(ports: u16) -> io::Result<(TcpListener, Vec<TcpListener>)> {
    let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = first.local_addr()?.port();
    let above = |further| {
        let port = port.checked_add(further).ok_or(io::ErrorKind::AddrNotAvailable)?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port))
    };
    let above = (1..ports).map(above).collect::<io::Result<_>>()?;
    Ok((first, above))
}

fn failed(start: &Start<'_>, why: &str) -> ServerError {
    ServerError::new(ServerErrorKind::NotReady, format!("{} {why}", start.program.display()))
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LAST_LINES);
    if lines.is_empty() { "nothing".to_owned() } else { lines.get(from..).unwrap_or_default().join("\n    ") }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &'static str) -> Result<(Process, SocketAddr, ()), ServerError> {
        let prepare = |_: SocketAddr, _: &Path| Ok(vec!["-c".into(), script.into()]);
        let start = Start { name: "test", program: Path::new("/bin/sh"), ports: 1, prepare: &prepare };
        Process::start(&start, |_| Ok(()))
    }

    #[test]
    fn a_dropped_process_is_gone_and_its_data_removed() {
        let (mut process, address, ()) = shell("exec sleep 600").unwrap();
        let folder = process._data.path().to_owned();
        assert!(process.is_running() && folder.is_dir() && address.ip().is_loopback());
        drop(process);
        assert!(!folder.exists());
    }

    #[test]
    fn ports_in_a_row_are_free_together() {
        let (first, above) = (0..SEARCHES).find_map(|_| in_a_row(3).ok()).unwrap();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        assert_eq!(above.iter().map(port).collect::<Vec<_>>(), [port(&first) + 1, port(&first) + 2]);
        assert!(free_addresses(3).unwrap().ip().is_loopback());
    }

    #[test]
    fn a_server_that_ends_at_once_is_an_error_with_its_last_words() {
        let prepare = |_: SocketAddr, _: &Path| Ok(vec!["-c".into(), "echo the disk is full; exit 1".into()]);
        let start = Start { name: "test", program: Path::new("/bin/sh"), ports: 1, prepare: &prepare };
        let error = Process::start(&start, |_| Err::<(), _>(io::ErrorKind::ConnectionRefused.into())).unwrap_err();
        assert_eq!(error.kind(), ServerErrorKind::NotReady);
        assert!(error.to_string().contains("the disk is full"), "{error}");
    }
}
