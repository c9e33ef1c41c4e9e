//! A NATS server's address, and the line with which it greets every client.

use std::io::{self, BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(5);
const DEFAULT_PORT: u16 = 4222;
/// Far more than a server says; another program on the port may never end its line.
const LONGEST_LINE: u64 = 64 * 1024;

/// What a server says of itself.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Info {
    pub(super) version: String,
    pub(super) jetstream: bool,
}

/// Connects and reads the server's greeting: only that shows that a NATS server answers.
pub(super) fn probe(address: SocketAddr) -> io::Result<Info> {
    let stream = TcpStream::connect_timeout(&address, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST_LINE)).read_line(&mut line)?;
    parse(&line).ok_or_else(|| io::Error::other(format!("{address} is not a NATS server")))
}

/// As [`probe`], for an address as a user writes it; of several, one that answers is enough.
pub(super) fn probe_url(urls: &str) -> io::Result<Info> {
    let mut failure = io::Error::other("no address");
    for url in urls.split(',') {
        let addresses = match host_and_port(url).and_then(|target| target.to_socket_addrs()) {
            Ok(addresses) => addresses,
            Err(error) => {
                failure = error;
                continue;
            }
        };
        for address in addresses {
            match probe(address) {
                Ok(info) => return Ok(info),
                Err(error) => failure = error,
            }
        }
    }
    Err(failure)
}

fn host_and_port(url: &str) -> io::Result<String> {
    let url = url.trim().trim_end_matches('/');
    let rest = match url.split_once("://") {
        Some(("nats" | "tls", rest)) => rest,
        None => url,
        Some((scheme, _)) => {
            let text = format!("`{scheme}://` is not an address of NATS; write nats://HOST:PORT");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
    };
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let after_brackets = host.rsplit_once(']').map_or(host, |(_, after)| after);
    Ok(if after_brackets.contains(':') { host.to_owned() } else { format!("{host}:{DEFAULT_PORT}") })
}

fn parse(line: &str) -> Option<Info> {
    let info: Value = serde_json::from_str(line.strip_prefix("INFO ")?).ok()?;
    Some(Info {
        version: info.get("version")?.as_str()?.to_owned(),
        jetstream: info.get("jetstream").and_then(Value::as_bool).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn an_address_may_leave_things_out() {
        for (url, expected) in [
            ("nats://127.0.0.1:4333", "127.0.0.1:4333"),
            ("tls://me:secret@broker.example", "broker.example:4222"),
            ("localhost", "localhost:4222"),
            ("nats://[::1]:4333/", "[::1]:4333"),
            ("nats://[::1]", "[::1]:4222"),
        ] {
            assert_eq!(host_and_port(url).unwrap(), expected, "{url}");
        }
    }

    #[test]
    fn a_foreign_scheme_says_what_to_write() {
        let error = host_and_port("amqp://localhost").unwrap_err();
        assert!(error.to_string().contains("nats://HOST:PORT"), "{error}");
    }

    #[test]
    fn the_greeting_is_read() {
        let line = "INFO {\"server_id\":\"N\",\"version\":\"2.15.2\",\"jetstream\":true} \r\n";
        assert_eq!(parse(line), Some(Info { version: "2.15.2".into(), jetstream: true }));
        assert_eq!(parse("INFO {\"version\":\"2.9.10\"}").map(|info| info.jetstream), Some(false));
        assert_eq!(parse("HTTP/1.1 400 Bad Request"), None);
    }

    #[test]
    fn another_program_on_the_port_is_no_nats_server() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let other = thread::spawn(move || listener.accept().unwrap().0.write_all(b"220 mail\r\n").unwrap());
        assert!(probe(address).unwrap_err().to_string().contains("is not a NATS server"));
        other.join().unwrap();
    }
}
