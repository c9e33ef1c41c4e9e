//! A service that is not ours: a process that is told by lines what to do, and notes in lines what arrives.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a test waits for anything before it fails: several services start at the same time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The service. It ends with the test.
pub(crate) struct Peer {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    /// What it complains of, read all the time so that it can go on.
    stderr: JoinHandle<String>,
    /// What it said that nobody has asked for yet.
    said: Vec<Value>,
}

impl Peer {
    /// Starts it, and returns when it is ready.
    pub(crate) async fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|failed| panic!("{command:?} does not start: {failed}"));
        let (stdin, stdout) = (child.stdin.take().expect("its input"), child.stdout.take().expect("its output"));
        let mut complaints = child.stderr.take().expect("its messages");
        let stderr = tokio::spawn(async move {
            let mut text = String::new();
            let _ = complaints.read_to_string(&mut text).await;
            text
        });
        let mut peer = Self { child, stdin, stdout: BufReader::new(stdout).lines(), stderr, said: Vec::new() };
        peer.noted("ready").await;
        peer
    }

    /// Has it do something, and returns what came of it.
    pub(crate) async fn does(&mut self, order: Value) -> Value {
        // One that has ended says why.
        let _ = self.stdin.write_all(format!("{order}\n").as_bytes()).await;
        self.noted("done").await["answer"].take()
    }

    /// Returns the next of its notes about this.
    pub(crate) async fn noted(&mut self, what: &str) -> Value {
        if let Some(index) = self.said.iter().position(|note| note["note"] == what) {
            return self.said.remove(index);
        }
        loop {
            let note = match timeout(PATIENCE, self.stdout.next_line()).await {
                Ok(Ok(Some(line))) => serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?} is no note")),
                Ok(_) => panic!("it ended before {what}: {}", self.last_words().await),
                Err(_) => {
                    let complaints = self.last_words().await;
                    panic!("nothing of {what} in time, but {:?}: {complaints}", self.said)
                }
            };
            match note {
                Value::Object(ref fields) if fields["note"] == what => return note,
                other => self.said.push(other),
            }
        }
    }

    /// Tells it to end. It has sent its spans then.
    pub(crate) async fn end(mut self) {
        drop(self.stdin);
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends in time").expect("it ends");
        assert!(status.success(), "{status}: {}", self.stderr.await.unwrap_or_default());
    }

    async fn last_words(&mut self) -> String {
        // It may have ended.
        let _ = self.child.kill().await;
        (&mut self.stderr).await.unwrap_or_default()
    }
}

/// Returns the value of a variable; a missing one is a failure, never a skip.
pub(crate) fn named(variable: &str) -> String {
    match std::env::var(variable) {
        Ok(value) if !value.is_empty() => value,
        _ => panic!("{variable} is not set: run `cargo xtask interop`, which finds or installs what it names"),
    }
}

/// Returns the path of a program of this folder.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(name)
}
