//! A RabbitMQ server's address, and the method with which it greets every client.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(5);
const DEFAULT_PORT: u16 = 5672;
/// AMQP 0-9-1, as a client begins.
const HEADER: &[u8; 8] = b"AMQP\0\0\x09\x01";
/// A frame with a method, on channel 0.
const METHOD_FRAME: [u8; 3] = [1, 0, 0];
/// Connection.Start of AMQP 0-9: class, method, version.
const START: [u8; 6] = [0, 10, 0, 10, 0, 9];
/// Far more than a server says; another program on the port may announce anything.
const LONGEST_FRAME: u64 = 64 * 1024;

/// Connects, begins a handshake and returns the version in the server's greeting: only that shows that RabbitMQ answers.
pub(super) fn probe(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.write_all(HEADER)?;
    let foreign = || io::Error::other(format!("{address} is not a RabbitMQ server"));
    let mut head = [0; 7];
    stream.read_exact(&mut head)?;
    let [kind, c0, c1, length @ ..] = head;
    let length = u64::from(u32::from_be_bytes(length));
    if [kind, c0, c1] != METHOD_FRAME || length > LONGEST_FRAME {
        return Err(foreign());
    }
    let mut method = Vec::new();
    stream.take(length).read_to_end(&mut method)?;
    version(&method).ok_or_else(foreign)
}

/// As [`probe`], for an address as a user writes it.
pub(super) fn probe_url(url: &str) -> io::Result<String> {
    let mut failure = io::Error::other("no address");
    for address in host_and_port(url)?.to_socket_addrs()? {
        match probe(address) {
            Ok(version) => return Ok(version),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn host_and_port(url: &str) -> io::Result<String> {
    let Some(rest) = url.trim().strip_prefix("amqp://") else {
        // A greeting behind TLS cannot be read here.
        let text = "an address of RabbitMQ without TLS is amqp://USER:PASSWORD@HOST:PORT/VHOST";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let after_brackets = host.rsplit_once(']').map_or(host, |(_, after)| after);
    Ok(if after_brackets.contains(':') { host.to_owned() } else { format!("{host}:{DEFAULT_PORT}") })
}

/// The version in the properties of Connection.Start, when they are those of RabbitMQ.
fn version(method: &[u8]) -> Option<String> {
    let (mut properties, _) = counted(method.strip_prefix(&START)?)?;
    let (mut product, mut version) = (None, None);
    while let Some((length, rest)) = properties.split_first() {
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (value, rest) = value(rest)?;
        match name {
            b"product" => product = Some(value),
            b"version" => version = Some(value),
            _ => {}
        }
        properties = rest;
    }
    let version = product.filter(|product| *product == b"RabbitMQ").and(version)?;
    String::from_utf8(version.to_vec()).ok()
}

/// The first value and the rest; only of the types that a server has in its properties.
fn value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match bytes.split_first()? {
        (b'S' | b'F', rest) => counted(rest),
        (b't', rest) => rest.split_at_checked(1),
        _ => None,
    }
}

/// What has its length before it, and the rest.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// The frame with which a server of this product and version greets.
    fn greeting(product: &str, version: &str) -> Vec<u8> {
        let mut properties = Vec::new();
        for (name, kind, value) in [
            ("capabilities", b'F', b"\x12publisher_confirmst\x01".as_slice()),
            ("product", b'S', product.as_bytes()),
            ("version", b'S', version.as_bytes()),
        ] {
            properties.extend([&[name.len() as u8], name.as_bytes(), &[kind], &counted(value)[..]].concat());
        }
        let method = [&START[..], &counted(&properties), &counted(b"PLAIN"), &counted(b"en_US")].concat();
        [&METHOD_FRAME[..], &counted(&method), b"\xce"].concat()
    }

    fn counted(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
    }

    /// What the probe says of a server that reads the header and answers this.
    fn probe_of(answer: Vec<u8>) -> io::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut header = [0; 8];
            stream.read_exact(&mut header).unwrap();
            stream.write_all(&answer).unwrap();
            header
        });
        let result = probe(address);
        assert_eq!(&server.join().unwrap(), HEADER);
        result
    }

    #[test]
    fn the_version_is_read_from_the_greeting() {
        assert_eq!(probe_of(greeting("RabbitMQ", "4.0.5")).unwrap(), "4.0.5");
    }

    #[test]
    fn another_program_on_the_port_is_no_rabbitmq_server() {
        let mut cut = greeting("RabbitMQ", "4.0.5");
        cut.truncate(60);
        for answer in
            [greeting("LavinMQ", "2.1.0"), b"HTTP/1.1 400 Bad Request".to_vec(), b"AMQP\0\0\x09\x01".to_vec(), cut]
        {
            let error = probe_of(answer.clone()).unwrap_err();
            assert!(error.to_string().contains("is not a RabbitMQ server"), "{error} for {answer:?}");
        }
        assert_eq!(probe_of(Vec::new()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_address_may_leave_things_out() {
        for (url, expected) in [
            ("amqp://guest:guest@127.0.0.1:5673/%2f", "127.0.0.1:5673"),
            ("amqp://me:secret@broker.example/orders?heartbeat=5", "broker.example:5672"),
            ("amqp://localhost", "localhost:5672"),
            ("amqp://[::1]:5673", "[::1]:5673"),
            ("amqp://[::1]/", "[::1]:5672"),
        ] {
            assert_eq!(host_and_port(url).unwrap(), expected, "{url}");
        }
    }

    #[test]
    fn a_foreign_scheme_says_what_to_write() {
        for url in ["amqps://localhost", "nats://localhost", "localhost:5672"] {
            let error = host_and_port(url).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains("amqp://USER:PASSWORD@HOST:PORT/VHOST"), "{error}");
        }
    }
}
