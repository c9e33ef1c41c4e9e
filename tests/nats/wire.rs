//! A plain TCP client of the NATS protocol, for what async-nats refuses to write.

use async_nats::ServerAddr;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::PATIENCE;
use crate::witness::unique;

/// One connection. It says nothing but what a test tells it to.
pub(crate) struct Wire {
    url: String,
    /// Where streams answer, to this connection alone.
    inbox: String,
    connection: BufReader<TcpStream>,
}

impl Wire {
    pub(crate) async fn connect(url: &str) -> Self {
        let inbox = format!("_INBOX.wire.{}", unique());
        let connection = timeout(PATIENCE, open(url, &inbox)).await.expect("the server greets within its time");
        Self { url: url.to_owned(), inbox, connection }
    }

    /// Publishes a block of headers as it stands and a body; returns whether the server took it.
    pub(crate) async fn publish(&mut self, subject: &str, block: &[u8], body: &[u8]) -> bool {
        self.write(&format!("HPUB {subject} {} {}\r\n", block.len(), block.len() + body.len()), block, body).await;
        self.write("PING\r\n", b"", b"").await;
        loop {
            match self.line().await.as_deref() {
                Some("PONG") => return true,
                Some(line) if line.starts_with("-ERR") => return self.again().await,
                Some(_) => {}
                None => return self.again().await,
            }
        }
    }

    /// As [`publish`](Self::publish), and returns whether a stream stored it.
    pub(crate) async fn store(&mut self, subject: &str, block: &[u8], body: &[u8]) -> bool {
        let lengths = format!("{} {}", block.len(), block.len() + body.len());
        self.write(&format!("HPUB {subject} {} {lengths}\r\n", self.inbox), block, body).await;
        loop {
            match self.line().await.as_deref() {
                Some(line) if line.starts_with("MSG ") || line.starts_with("HMSG ") => {
                    let length = line.rsplit(' ').next().and_then(|length| length.parse::<usize>().ok());
                    let mut answer = vec![0; length.expect("a length") + 2];
                    timeout(PATIENCE, self.connection.read_exact(&mut answer))
                        .await
                        .expect("the answer comes")
                        .expect("all of it");
                    return !String::from_utf8_lossy(&answer).contains("\"error\"");
                }
                Some(line) if line.starts_with("-ERR") => return self.again().await,
                Some(_) => {}
                None => return self.again().await,
            }
        }
    }

    /// Publishes a request, whose answer goes to that inbox.
    pub(crate) async fn ask(&mut self, subject: &str, inbox: &str, block: &[u8], body: &[u8]) {
        let lengths = format!("{} {}", block.len(), block.len() + body.len());
        self.write(&format!("HPUB {subject} {inbox} {lengths}\r\n"), block, body).await;
    }

    /// Subscribes, and returns when the server knows of it.
    pub(crate) async fn subscribe(&mut self, subject: &str) {
        self.write(&format!("SUB {subject} 2\r\nPING\r\n"), b"", b"").await;
        while self.line().await.expect("the server's answer") != "PONG" {}
    }

    /// Returns the block of headers and the body of the next message, as they went over the wire.
    pub(crate) async fn next(&mut self) -> (Vec<u8>, Vec<u8>) {
        loop {
            let line = self.line().await.expect("a message");
            let has_headers = line.starts_with("HMSG ");
            if !has_headers && !line.starts_with("MSG ") {
                continue;
            }
            let mut lengths = line.rsplit(' ').map(|length| length.parse::<usize>());
            let length = lengths.next().expect("a length").expect("a number");
            let headers = if has_headers { lengths.next().expect("a length").expect("a number") } else { 0 };
            let mut all = vec![0; length + 2];
            let read = timeout(PATIENCE, self.connection.read_exact(&mut all)).await;
            read.expect("the message comes").expect("all of it");
            all.truncate(length);
            let body = all.split_off(headers);
            return (all, body);
        }
    }

    async fn write(&mut self, line: &str, block: &[u8], body: &[u8]) {
        let end: &[u8] = if block.is_empty() { b"" } else { b"\r\n" };
        let all = [line.as_bytes(), block, body, end].concat();
        let written = timeout(PATIENCE, self.connection.get_mut().write_all(&all)).await;
        // A server that hangs up in the middle of it has refused.
        let _ = written.expect("the server reads");
    }

    /// Reads a line; the server's own pings are answered.
    async fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, self.connection.read_line(&mut line)).await.expect("the server answers");
            if read.unwrap_or(0) == 0 {
                return None;
            }
            match line.trim_end() {
                "PING" => self.write("PONG\r\n", b"", b"").await,
                line => return Some(line.to_owned()),
            }
        }
    }

    /// Connects again, since the server hangs up after an error.
    async fn again(&mut self) -> bool {
        *self = Self::connect(&self.url).await;
        false
    }
}

async fn open(url: &str, inbox: &str) -> BufReader<TcpStream> {
    let server: ServerAddr = url.parse().expect("THROUGHLINE_NATS_URL is an address");
    let stream = TcpStream::connect((server.host(), server.port())).await.expect("a connection to the server");
    let mut connection = BufReader::new(stream);
    let mut line = String::new();
    connection.read_line(&mut line).await.expect("the server's greeting");
    assert!(line.starts_with("INFO "), "{line}");
    let login = match (server.username(), server.password()) {
        (Some(user), Some(password)) => format!("\"user\":\"{user}\",\"pass\":\"{password}\","),
        _ => String::new(),
    };
    let connect = format!(
        "CONNECT {{{login}\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\
         \"lang\":\"plain\",\"version\":\"0\"}}\r\nSUB {inbox} 1\r\nPING\r\n"
    );
    connection.get_mut().write_all(connect.as_bytes()).await.expect("the login is written");
    while line.trim_end() != "PONG" {
        line.clear();
        let read = connection.read_line(&mut line).await.expect("the server's answer");
        assert!(read > 0 && !line.starts_with("-ERR"), "the server refuses the login: {line}");
    }
    connection
}
