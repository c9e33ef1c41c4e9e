//! A Kafka server's address, and whether a broker that can be used answers there.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(5);
const DEFAULT_PORT: u16 = 9092;
/// Echoed by a Kafka server; another program has it in this place only by accident.
const CORRELATION_ID: [u8; 4] = *b"thru";

/// Asks for the brokers of the cluster. One that still starts does not list itself yet, and creates no topic.
pub(super) fn probe(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.write_all(&metadata_request())?;
    let mut answer = [0; 12];
    let read = stream.read_exact(&mut answer);
    if read.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::UnexpectedEof) {
        return read;
    }
    match brokers(&answer) {
        Some(1..) => Ok(()),
        Some(_) => Err(io::Error::other(format!("the broker at {address} is not ready"))),
        None => Err(io::Error::other(format!("{address} is not a Kafka server"))),
    }
}

/// As [`probe`], for bootstrap servers as a user writes them; of several, one that answers is enough.
pub(super) fn probe_any(servers: &str) -> io::Result<()> {
    let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "no address");
    for server in servers.split(',') {
        let addresses = match host_and_port(server)?.to_socket_addrs() {
            Ok(addresses) => addresses,
            Err(error) => {
                failure = error;
                continue;
            }
        };
        for address in addresses {
            match probe(address) {
                Ok(()) => return Ok(()),
                Err(error) => failure = error,
            }
        }
    }
    Err(failure)
}

fn host_and_port(server: &str) -> io::Result<String> {
    let server = server.trim();
    if let Some((scheme, _)) = server.split_once("://") {
        let text = format!("`{scheme}://` is not part of a bootstrap server; write HOST:PORT");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let after_brackets = server.rsplit_once(']').map_or(server, |(_, after)| after);
    Ok(if after_brackets.contains(':') { server.to_owned() } else { format!("{server}:{DEFAULT_PORT}") })
}

/// A request `Metadata` of version 1 for no topic: length, key and version of the request, correlation id, no
/// client id, no topic.
fn metadata_request() -> Vec<u8> {
    let mut request = Vec::new();
    request.extend(14_u32.to_be_bytes());
    request.extend(3_u16.to_be_bytes());
    request.extend(1_u16.to_be_bytes());
    request.extend(CORRELATION_ID);
    request.extend((-1_i16).to_be_bytes());
    request.extend(0_u32.to_be_bytes());
    request
}

/// How many brokers the head of the answer announces: length, correlation id, number of brokers.
fn brokers(answer: &[u8; 12]) -> Option<i32> {
    let [_, _, _, _, c0, c1, c2, c3, n0, n1, n2, n3] = *answer;
    ([c0, c1, c2, c3] == CORRELATION_ID).then(|| i32::from_be_bytes([n0, n1, n2, n3]))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// What the probe says of a server that reads the request and answers this.
    fn probe_of(answer: &'static [u8]) -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut request = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(answer).unwrap();
        });
        let result = probe(address);
        server.join().unwrap();
        result
    }

    #[test]
    fn a_broker_that_lists_itself_is_ready() {
        probe_of(b"\0\0\0\x25thru\0\0\0\x01\0\0\0\x01").unwrap();
    }

    #[test]
    fn a_broker_that_still_starts_is_not_ready() {
        let error = probe_of(b"\0\0\0\x10thru\0\0\0\0").unwrap_err();
        assert!(error.to_string().contains("is not ready"), "{error}");
    }

    #[test]
    fn another_program_on_the_port_is_no_kafka_server() {
        let error = probe_of(b"HTTP/1.1 400 Bad Request\r\n").unwrap_err();
        assert!(error.to_string().contains("is not a Kafka server"), "{error}");
    }

    #[test]
    fn an_address_may_leave_the_port_out() {
        for (server, expected) in [
            ("127.0.0.1:9192", "127.0.0.1:9192"),
            (" broker.example ", "broker.example:9092"),
            ("[::1]:9192", "[::1]:9192"),
            ("[::1]", "[::1]:9092"),
        ] {
            assert_eq!(host_and_port(server).unwrap(), expected, "{server}");
        }
    }

    #[test]
    fn a_scheme_says_what_to_write() {
        let error = probe_any("kafka://localhost:9092").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("write HOST:PORT"), "{error}");
    }
}
