//! The other end of an HTTP server under test, as bytes on a socket.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// A request that was begun: its head is sent, of its body nothing.
pub(crate) struct Request {
    stream: TcpStream,
}

impl Request {
    /// Sends the head. `headers` are whole lines.
    pub(crate) async fn begin(
        server: SocketAddr,
        line: &str,
        headers: &[&str],
        body_size: usize,
    ) -> std::io::Result<Self> {
        let mut stream = TcpStream::connect(server).await?;
        let mut head = format!("{line} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {body_size}\r\n");
        headers.iter().for_each(|header| head.extend([header, "\r\n"]));
        stream.write_all(format!("{head}\r\n").as_bytes()).await?;
        Ok(Self { stream })
    }

    /// Waits until the server asks for the body: the request must have the header `expect: 100-continue`.
    #[allow(dead_code, reason = "not each test has a request that is under way")]
    pub(crate) async fn is_taken(&mut self) -> std::io::Result<()> {
        let mut interim = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
        timeout(PATIENCE, self.stream.read_exact(&mut interim)).await??;
        if interim.starts_with(b"HTTP/1.1 100 ") {
            Ok(())
        } else {
            Err(std::io::Error::other("not asked for the body"))
        }
    }

    /// Sends the body and returns the status and the body of the answer.
    pub(crate) async fn finish(mut self, body: &str) -> std::io::Result<(u16, String)> {
        self.stream.write_all(body.as_bytes()).await?;
        let mut answer = String::new();
        timeout(PATIENCE, self.stream.read_to_string(&mut answer)).await??;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("no answer: {answer:?}")))?;
        Ok((status, body.to_owned()))
    }
}
