use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::message::BasicReturnMessage;
use lapin::{Channel, Confirmation};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::fingerprint::Fingerprint;

/// One publish that the client has taken, until the server has confirmed it. It is never dropped before: the client would keep it for
/// ever, and hand it the return of another one.
pub(super) struct Pending {
    /// In the order of publishing.
    pub(super) number: u64,
    pub(super) print: Fingerprint,
    pub(super) mandatory: bool,
    pub(super) confirmed: Confirmed,
    pub(super) answer: oneshot::Sender<Answer>,
    pub(super) room: OwnedSemaphorePermit,
}

pub(super) type Confirmed = Pin<Box<dyn Future<Output = lapin::Result<Confirmation>> + Send>>;

/// What the server did with a message.
#[derive(Debug)]
pub(super) enum Answer {
    Stored,
    /// No queue took it.
    Returned {
        code: u16,
        text: String,
    },
    /// A queue could not take it.
    Refused,
    /// The channel has ended before the server said so.
    Unknown(lapin::Error),
}

/// What belongs to a publish besides its confirmation.
struct Publish {
    number: u64,
    print: Fingerprint,
    mandatory: bool,
    answer: oneshot::Sender<Answer>,
    _room: OwnedSemaphorePermit,
}

/// A message that came back.
struct Return {
    print: Fingerprint,
    code: u16,
    text: String,
}

type Resolved = (Publish, lapin::Result<Confirmation>);

/// A publish until it is confirmed.
struct Waiting {
    publish: Option<Publish>,
    confirmed: Confirmed,
}

impl Future for Waiting {
    type Output = Option<Resolved>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Resolved>> {
        let confirmed = ready!(self.confirmed.as_mut().poll(context));
        Poll::Ready(self.publish.take().map(|publish| (publish, confirmed)))
    }
}

/// Gives each publish of a channel its confirmation, and its return where there is one.
///
/// The client hands a returned message to any publish: to the one that it confirms next. But it does so while it holds a lock, for a whole
/// frame of confirmations, and a return comes before the confirmation of its own message. So a publish is answered when all that was
/// confirmed together with it has been looked at, and a returned message goes to the publish that looks like it.
pub(super) struct Collector {
    channel: Channel,
    /// Held while a message is given to the client.
    publishing: Arc<Mutex<u64>>,
    incoming: mpsc::UnboundedReceiver<Pending>,
    waiting: FuturesUnordered<Waiting>,
    /// How many publishes of each look are not answered.
    open: HashMap<u64, usize>,
    /// What came back, and belongs to a publish that is not answered.
    returned: Vec<Return>,
    /// Whether more was resolved while some was taken.
    more: Arc<More>,
}

impl Collector {
    pub(super) fn new(
        channel: Channel,
        publishing: Arc<Mutex<u64>>,
        incoming: mpsc::UnboundedReceiver<Pending>,
    ) -> Self {
        let (waiting, open, returned, more) = Default::default();
        Self { channel, publishing, incoming, waiting, open, returned, more }
    }

    /// Runs until nobody publishes any more and all is answered.
    pub(super) async fn run(mut self) {
        let mut ends = false;
        while !(ends && self.waiting.is_empty()) {
            tokio::select! {
                Some(resolved) = self.waiting.next(), if !self.waiting.is_empty() => self.answer_all(resolved),
                pending = self.incoming.recv(), if !ends => match pending {
                    Some(pending) => self.take(pending),
                    None => ends = true,
                },
            }
        }
    }

    fn take(&mut self, pending: Pending) {
        let Pending { number, print, mandatory, confirmed, answer, room } = pending;
        *self.open.entry(print.exact).or_default() += 1;
        let publish = Publish { number, print, mandatory, answer, _room: room };
        self.waiting.push(Waiting { publish: Some(publish), confirmed });
    }

    /// Answers all publishes that are confirmed.
    fn answer_all(&mut self, first: Option<Resolved>) {
        let mut resolved: Vec<_> = first.into_iter().collect();
        self.drain(&mut resolved);
        while !resolved.is_empty() {
            // Whoever is confirmed in the same frame as one of these is so from here on.
            self.wait_for_frame();
            let mut next = Vec::new();
            self.drain(&mut next);
            for (_, confirmed) in resolved.iter_mut().chain(&mut next) {
                self.returned.extend(take_return(confirmed));
            }
            resolved.sort_unstable_by_key(|(publish, _)| publish.number);
            for (publish, confirmed) in resolved {
                self.answer(publish, confirmed);
            }
            resolved = next;
        }
    }

    /// Takes the lock that the client holds while it goes through one frame of confirmations, and before it that of a publish: what has
    /// come back may belong to one that is just being noted.
    fn wait_for_frame(&self) {
        drop(self.publishing.lock().unwrap_or_else(PoisonError::into_inner));
        let mut asked = std::pin::pin!(self.channel.wait_for_confirms());
        let _ = asked.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }

    /// Takes what is resolved, without waiting.
    fn drain(&mut self, resolved: &mut Vec<Resolved>) {
        // Both of them say "not now" where they have done much.
        while let Ok(pending) = self.incoming.try_recv() {
            self.take(pending);
        }
        let waker = Waker::from(Arc::clone(&self.more));
        let mut context = Context::from_waker(&waker);
        self.more.0.store(true, Ordering::Release);
        while self.more.0.swap(false, Ordering::AcqRel) {
            while let Poll::Ready(Some(one)) = self.waiting.poll_next_unpin(&mut context) {
                resolved.extend(one);
            }
        }
    }

    fn answer(&mut self, publish: Publish, confirmed: lapin::Result<Confirmation>) {
        let answer = match confirmed {
            Err(failed) => Answer::Unknown(failed),
            Ok(confirmed) => match self.return_of(&publish) {
                Some(Return { code, text, .. }) => Answer::Returned { code, text },
                None if confirmed.is_nack() => Answer::Refused,
                None => Answer::Stored,
            },
        };
        if let Some(open) = self.open.get_mut(&publish.print.exact) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&publish.print.exact);
            }
        }
        if self.open.is_empty() {
            self.returned.clear();
        }
        // Whoever published it may have gone.
        let _ = publish.answer.send(answer);
    }

    /// Takes the return that belongs to a publish: one that looks like it, or, where the server changed what it looks like, one to the same
    /// place that looks like no other.
    fn return_of(&mut self, publish: &Publish) -> Option<Return> {
        if self.returned.is_empty() || !publish.mandatory {
            return None;
        }
        let (print, open) = (publish.print, &self.open);
        let exact = self.returned.iter().position(|one| one.print.exact == print.exact);
        let is_alike = |one: &Return| one.print.place == print.place && !open.contains_key(&one.print.exact);
        let found = exact.or_else(|| self.returned.iter().position(is_alike))?;
        Some(self.returned.remove(found))
    }
}

/// Takes the message that the client has put with a confirmation.
fn take_return(confirmed: &mut lapin::Result<Confirmation>) -> Option<Return> {
    let (Ok(Confirmation::Ack(message)) | Ok(Confirmation::Nack(message))) = confirmed else { return None };
    let BasicReturnMessage { delivery, reply_code, reply_text, .. } = message.take()?;
    let (exchange, key) = (delivery.exchange.as_str(), delivery.routing_key.as_str());
    let print = Fingerprint::new(exchange, key, &delivery.properties, &delivery.data);
    Some(Return { print, code: reply_code, text: reply_text.as_str().to_owned() })
}

/// Notes that more is resolved.
#[derive(Default)]
struct More(AtomicBool);

impl Wake for More {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}
