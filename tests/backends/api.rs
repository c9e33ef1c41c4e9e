//! The interface of a backend over HTTP, asked until it says what a test waits for.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// How long a test waits for anything before it fails: a backend on the JVM takes its time where many tests run.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The time between two looks.
const POLL: Duration = Duration::from_millis(50);

/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Returns the body of the answer; none where there is no answer, or no good one.
pub(crate) async fn get(server: SocketAddr, path: &str) -> Option<String> {
    timeout(ANSWER_WITHIN, answer(server, "GET", path, "")).await.ok()?.ok()?
}

/// Returns the body of the answer as JSON, as [`get`].
pub(crate) async fn get_json(server: SocketAddr, path: &str) -> Option<Value> {
    serde_json::from_str(&get(server, path).await?).ok()
}

/// Says whether the server takes this JSON.
pub(crate) async fn takes(server: SocketAddr, path: &str, json: &str) -> bool {
    matches!(timeout(ANSWER_WITHIN, answer(server, "POST", path, json)).await, Ok(Ok(Some(_))))
}

/// Speaks HTTP 1.0, in which an answer is whole when it ends.
async fn answer(server: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<Option<String>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nhost: {server}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n"
    );
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok((head.split(' ').nth(1) == Some("200")).then(|| body.to_owned()))
}

/// Looks again and again until `look` finds what the test waits for; `what` says what that is.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        sleep(POLL).await;
    }
}
