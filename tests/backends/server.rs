//! A backend of a test: its program with the file of the guide, on free ports of this machine, with a folder of its own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, id};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that the system gives to connections: nobody takes a port between its choice and its use.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Returns the path in a variable; a missing one is a failure, never a skip.
pub(crate) fn program(variable: &str) -> PathBuf {
    match std::env::var_os(variable) {
        Some(program) if !program.is_empty() => program.into(),
        _ => panic!("{variable} names no program: run `cargo xtask test --backends`, which finds or installs it"),
    }
}

/// Returns the address that a variable such as `THROUGHLINE_JAEGER_URL` has, as `http://HOST:PORT`.
pub(crate) fn named(variable: &str) -> Option<SocketAddr> {
    let url = std::env::var(variable).ok().filter(|url| !url.is_empty())?;
    let host = url.strip_prefix("http://").unwrap_or(&url).trim_end_matches('/');
    let found =
        host.to_socket_addrs().unwrap_or_else(|error| panic!("{variable} is not http://HOST:PORT: {error}")).next();
    Some(found.unwrap_or_else(|| panic!("{variable} names a host that is not known")))
}

/// Returns an address of this machine that is free, and another one each time.
pub(crate) fn free() -> SocketAddr {
    static COUNT: AtomicU16 = AtomicU16::new(0);
    let length = PORTS.end - PORTS.start;
    let first = u16::try_from(id() % u32::from(length)).expect("it is below the length");
    for _ in 0..length {
        let further = COUNT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + first.wrapping_add(further) % length;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port of {PORTS:?} is free")
}

/// Returns a file of the guide with other values in place of those it shows. Each of these must be there.
pub(crate) fn with(config: &str, changes: &[(&str, String)]) -> String {
    changes.iter().fold(config.to_owned(), |text, (shown, used)| {
        assert!(text.contains(shown), "`{shown}` is not in\n{text}");
        text.replace(shown, used)
    })
}

/// A process with a folder of its own. Dropped, it is killed, and its folder removed.
pub(crate) struct Server {
    program: PathBuf,
    arguments: Vec<OsString>,
    folder: PathBuf,
    child: Option<Child>,
}

impl Server {
    /// Prepares a server that `configure` writes the files and the arguments of.
    pub(crate) fn new(name: &str, program: PathBuf, configure: impl FnOnce(&Path) -> Vec<OsString>) -> Self {
        let folder = std::env::temp_dir().join(format!("throughline-{name}-{}-{}", id(), free().port()));
        fs::create_dir(&folder).expect("a new folder");
        let arguments = configure(&folder);
        Self { program, arguments, folder, child: None }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts it, or starts it again.
    pub(crate) fn run(&mut self) {
        let log = File::options().create(true).append(true).open(self.folder.join("log")).expect("its log");
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the same log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", self.program.display()));
        self.child = Some(child);
    }

    /// Kills it, as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is killed");
            child.wait().expect("it is gone");
        }
    }

    /// What it said, for a test that waited in vain. A server that has ended is a failure at once.
    pub(crate) fn is_alive(&mut self) {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("a state"));
        if let Some(status) = ended {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            panic!("{} has ended, {status}; it said:\n{log}", self.program.display());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        // What is left in the temporary folder harms nobody.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
