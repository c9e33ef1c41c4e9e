//! A way to a server on which somebody else writes, too, and where it is counted what comes back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

/// Type, channel, size; and the byte after the content.
const HEAD: usize = 7;
const END: u8 = 0xce;
/// A frame with a method; `basic.consume`, `basic.return`, `basic.ack`: class and method.
const METHOD: u8 = 1;
const CONSUME: [u8; 4] = [0, 60, 0, 20];
const RETURN: [u8; 4] = [0, 60, 0, 50];
const ACK: [u8; 4] = [0, 60, 0, 80];
/// `confirm.select`.
const CONFIRM: [u8; 4] = [0, 85, 0, 10];
const HEARTBEAT: u8 = 8;
/// What a text that goes through here holds so that it is no UTF-8 behind it: no client of ours can write such.
pub(crate) const UNREADABLE: &str = "?unreadable?";

type Frames = mpsc::UnboundedSender<Vec<u8>>;

/// Passes everything on, and knows on which channels there are consumers.
pub(crate) struct Proxy {
    port: u16,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    consumers: Mutex<Vec<(u16, Frames)>>,
    returns: AtomicUsize,
    /// The connections that there are; `None` while there is no way to the server.
    open: Mutex<Option<Vec<AbortHandle>>>,
    ways: Mutex<Vec<Arc<Way>>>,
    /// Whether what the server says is held back.
    is_held: watch::Sender<bool>,
}

/// One connection.
#[derive(Default)]
struct Way {
    /// Whether the server reads nothing of the client but that it is there.
    is_unread: AtomicBool,
    /// The channels with confirms, and whether those are kept from the client.
    confirms: Mutex<HashMap<u16, bool>>,
}

impl Way {
    fn confirms(&self) -> MutexGuard<'_, HashMap<u16, bool>> {
        self.confirms.lock().expect("nobody panicked")
    }
}

impl Proxy {
    pub(crate) async fn start(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("its number").port();
        let seen = Arc::new(Seen { open: Mutex::new(Some(Vec::new())), ..Seen::default() });
        let known = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                let mut open = known.open.lock().expect("nobody panicked");
                let Some(open) = open.as_mut() else { continue };
                open.push(tokio::spawn(pass(client, server, Arc::clone(&known))).abort_handle());
            }
        });
        Self { port, seen }
    }

    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Ends all connections and lets no other one through, as a network does that is down.
    pub(crate) fn cut(&self) {
        let open = self.seen.open.lock().expect("nobody panicked").take();
        open.expect("it is whole").into_iter().for_each(|connection| connection.abort());
    }

    /// Lets connections through again.
    pub(crate) fn mend(&self) {
        *self.seen.open.lock().expect("nobody panicked") = Some(Vec::new());
    }

    /// Holds back what the server says, or lets it through again.
    pub(crate) fn hold(&self, is_held: bool) {
        self.seen.is_held.send_replace(is_held);
    }

    /// Lets the server read nothing more on the connections that there are, while it sends on.
    pub(crate) fn leave_unread(&self) {
        self.ways().iter().for_each(|way| way.is_unread.store(true, Ordering::SeqCst));
    }

    /// Keeps the confirmations of the channels that there are from the client.
    pub(crate) fn keep_confirms(&self) {
        self.ways().iter().for_each(|way| way.confirms().values_mut().for_each(|is_kept| *is_kept = true));
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        self.ways().len()
    }

    fn ways(&self) -> MutexGuard<'_, Vec<Arc<Way>>> {
        self.seen.ways.lock().expect("nobody panicked")
    }

    /// How many messages the server has returned to those who published them.
    pub(crate) fn returns(&self) -> usize {
        self.seen.returns.load(Ordering::SeqCst)
    }

    /// Acknowledges a message that nobody was given, on every channel that consumes: the server closes it.
    pub(crate) fn acknowledge_what_is_not_there(&self) -> usize {
        let consumers = std::mem::take(&mut *self.seen.consumers.lock().expect("nobody panicked"));
        consumers.iter().filter(|(channel, frames)| frames.send(ack(*channel, u64::MAX / 2)).is_ok()).count()
    }
}

fn ack(channel: u16, tag: u64) -> Vec<u8> {
    let content = [&ACK[..], &tag.to_be_bytes(), &[0]].concat();
    let size = u32::try_from(content.len()).expect("a short frame").to_be_bytes();
    [&[METHOD][..], &channel.to_be_bytes(), &size, &content, &[END]].concat()
}

async fn pass(client: TcpStream, server: TcpStream, seen: Arc<Seen>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (frames, mut next) = mpsc::unbounded_channel::<Vec<u8>>();
    let (known, way) = (Arc::clone(&seen), Arc::new(Way::default()));
    seen.ways.lock().expect("nobody panicked").push(Arc::clone(&way));
    let back = Arc::clone(&way);
    // They end with this one.
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(frame) = read(&mut from_server).await {
            if is_method(&frame, RETURN) {
                known.returns.fetch_add(1, Ordering::SeqCst);
            }
            if is_method(&frame, ACK) && back.confirms().get(&channel(&frame)).is_some_and(|is_kept| *is_kept) {
                continue;
            }
            if known.is_held.subscribe().wait_for(|is_held| !is_held).await.is_err() {
                break;
            }
            if to_client.write_all(&frame).await.is_err() {
                break;
            }
        }
        let _ = to_client.shutdown().await;
    });
    let writing = tasks.spawn(async move {
        while let Some(frame) = next.recv().await {
            if to_server.write_all(&frame).await.is_err() {
                return;
            }
        }
    });
    // The header of the protocol is no frame.
    let mut header = vec![0; 8];
    if from_client.read_exact(&mut header).await.is_ok() && frames.send(header).is_ok() {
        while let Some(mut frame) = read(&mut from_client).await {
            spoil(&mut frame);
            if is_method(&frame, CONSUME) {
                seen.consumers.lock().expect("nobody panicked").push((channel(&frame), frames.clone()));
            }
            if is_method(&frame, CONFIRM) {
                way.confirms().insert(channel(&frame), false);
            }
            if way.is_unread.load(Ordering::SeqCst) && frame[0] != HEARTBEAT {
                continue;
            }
            if frames.send(frame).is_err() {
                break;
            }
        }
    }
    writing.abort();
    while tasks.join_next().await.is_some() {}
}

fn spoil(frame: &mut [u8]) {
    while let Some(place) = frame.windows(UNREADABLE.len()).position(|part| part == UNREADABLE.as_bytes()) {
        frame[place] = 0xff;
    }
}

fn channel(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[1], frame[2]])
}

fn is_method(frame: &[u8], method: [u8; 4]) -> bool {
    frame[0] == METHOD && frame[HEAD..].starts_with(&method)
}

/// Reads one frame; none at the end.
async fn read(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut frame = vec![0; HEAD];
    from.read_exact(&mut frame).await.ok()?;
    let size = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]);
    let rest = usize::try_from(size).ok()? + 1;
    frame.resize(HEAD + rest, 0);
    from.read_exact(&mut frame[HEAD..]).await.ok()?;
    Some(frame)
}
