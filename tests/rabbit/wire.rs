//! A plain TCP client of the protocol, for what `lapin` refuses to write: names that stand twice or are not UTF-8, and fields of any type.

use lapin::uri::AMQPUri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::PATIENCE;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const FRAME_END: u8 = 0xce;

/// What stands around the properties in their frame, and in front of them.
const AROUND: usize = 8 + 14;

/// Class and number of a method.
type Method = (u16, u16);

const CONNECTION_CLOSE: Method = (10, 50);
const CHANNEL_CLOSE: Method = (20, 40);
const PUBLISH: Method = (60, 40);
const RETURN: Method = (60, 50);
const ACK: Method = (60, 80);

/// What the server made of a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    /// It does not fit in a frame, so it was not sent.
    TooLarge,
    /// The server closed the connection or hung up; with its code, where it said one.
    Closed(Option<u16>),
    /// A queue has it.
    Stored,
}

/// The properties of a message as they go over the wire: which there are, and all of them in their order.
#[derive(Clone, Debug)]
pub(crate) struct Properties {
    flags: u16,
    bytes: Vec<u8>,
}

impl Properties {
    /// Makes properties of headers alone, from fields as [`field`] makes them.
    pub(crate) fn headers(fields: &[u8]) -> Self {
        Self { flags: 0x2000, bytes: long(fields) }
    }
}

/// Makes a header: its name, its type and its value.
pub(crate) fn field(name: &[u8], kind: u8, value: &[u8]) -> Vec<u8> {
    [&short(name)[..], &[kind], value].concat()
}

/// Writes bytes with a length of four bytes: long strings, byte arrays, tables and arrays.
pub(crate) fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("less than 4 GB");
    [&length.to_be_bytes()[..], bytes].concat()
}

/// Writes bytes with a length of one byte.
pub(crate) fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).expect("at most 255 bytes")][..], bytes].concat()
}

/// One channel with confirms, on a connection of its own.
pub(crate) struct Wire {
    url: String,
    stream: TcpStream,
    frame_max: usize,
}

impl Wire {
    pub(crate) async fn connect(url: &str) -> Self {
        timeout(PATIENCE, Self::open(url)).await.expect("the server answers in time")
    }

    async fn open(url: &str) -> Self {
        let AMQPUri { authority, vhost, .. } = url.parse().expect("THROUGHLINE_RABBIT_URL is an address");
        let stream = TcpStream::connect((authority.host, authority.port)).await.expect("a connection to the server");
        let mut wire = Self { url: url.to_owned(), stream, frame_max: 0 };
        wire.stream.write_all(b"AMQP\0\0\x09\x01").await.expect("the greeting is written");
        wire.expect((10, 10)).await;
        let login = format!("\0{}\0{}", authority.userinfo.username, authority.userinfo.password);
        let arguments = [long(b""), short(b"PLAIN"), long(login.as_bytes()), short(b"en_US")].concat();
        wire.call(0, (10, 11), &arguments).await;
        let tune = wire.expect((10, 30)).await;
        let [channels @ .., a, b, c, d, _, _] = &tune[..] else { panic!("the server's limits: {tune:?}") };
        wire.frame_max = u32::from_be_bytes([*a, *b, *c, *d]).try_into().expect("a size");
        // Without a heartbeat: a test may wait longer.
        wire.call(0, (10, 31), &[channels, &[*a, *b, *c, *d, 0, 0]].concat()).await;
        wire.call(0, (10, 40), &[short(vhost.as_bytes()), short(b""), vec![0]].concat()).await;
        wire.expect((10, 41)).await;
        wire.call(1, (20, 10), &short(b"")).await;
        wire.expect((20, 11)).await;
        wire.call(1, (85, 10), &[0]).await;
        wire.expect((85, 11)).await;
        wire
    }

    /// Publishes a message to a queue that is there, and waits for the server's answer.
    pub(crate) async fn publish(&mut self, queue: &str, properties: &Properties, body: &[u8]) -> Answer {
        if AROUND + properties.bytes.len() > self.frame_max {
            return Answer::TooLarge;
        }
        let place = [&[0, 0][..], &short(b""), &short(queue.as_bytes()), &[1]].concat();
        let size = u64::try_from(body.len()).expect("a size").to_be_bytes();
        let header = [&[0, 60, 0, 0][..], &size, &properties.flags.to_be_bytes(), &properties.bytes].concat();
        let frames = [method(1, PUBLISH, &place), frame(HEADER, 1, &header), frame(BODY, 1, body)].concat();
        // A server that hangs up in the middle of it says so in its answer.
        let _ = self.stream.write_all(&frames).await;
        match timeout(PATIENCE, self.answer()).await.expect("the server answers in time") {
            Some((ACK, _)) => Answer::Stored,
            closed => {
                *self = Self::connect(&self.url).await;
                Answer::Closed(closed.and_then(|(_, arguments)| code(&arguments)))
            }
        }
    }

    /// Returns the server's answer to a publish; `None` where it hung up.
    async fn answer(&mut self) -> Option<(Method, Vec<u8>)> {
        loop {
            let (method, arguments) = self.read().await?;
            match method {
                ACK | CHANNEL_CLOSE | CONNECTION_CLOSE => return Some((method, arguments)),
                RETURN => panic!("the queue is not there"),
                _ => {}
            }
        }
    }

    async fn call(&mut self, channel: u16, name: Method, arguments: &[u8]) {
        self.stream.write_all(&method(channel, name, arguments)).await.expect("the call is written");
    }

    async fn expect(&mut self, name: Method) -> Vec<u8> {
        let (method, arguments) = self.read().await.expect("an answer");
        assert_eq!(method, name, "{}", String::from_utf8_lossy(&arguments));
        arguments
    }

    /// Reads until a method comes.
    async fn read(&mut self) -> Option<(Method, Vec<u8>)> {
        loop {
            let mut start = [0; 7];
            self.stream.read_exact(&mut start).await.ok()?;
            let [kind, _, _, length @ ..] = start;
            let length = usize::try_from(u32::from_be_bytes(length)).expect("a size");
            let mut content = vec![0; length + 1];
            self.stream.read_exact(&mut content).await.ok()?;
            if kind != METHOD {
                continue;
            }
            let [a, b, c, d, arguments @ .., FRAME_END] = &content[..] else { panic!("no method: {content:?}") };
            return Some(((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])), arguments.to_vec()));
        }
    }
}

/// The code with which the server closes something.
fn code(arguments: &[u8]) -> Option<u16> {
    let [a, b, ..] = arguments else { return None };
    Some(u16::from_be_bytes([*a, *b]))
}

fn method(channel: u16, (class, number): Method, arguments: &[u8]) -> Vec<u8> {
    frame(METHOD, channel, &[&class.to_be_bytes()[..], &number.to_be_bytes(), arguments].concat())
}

fn frame(kind: u8, channel: u16, content: &[u8]) -> Vec<u8> {
    let channel = channel.to_be_bytes();
    [&[kind][..], &channel, &long(content), &[FRAME_END]].concat()
}
