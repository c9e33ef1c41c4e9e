use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use lapin::Channel;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use throughline_core::BrokerError;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::timeout;

use super::Outgoing;
use super::confirms::{Answer, Collector, Confirmed, Pending};
use super::fingerprint::Fingerprint;
use crate::error;
use crate::link::Link;
use crate::options::Limits;

/// A channel with confirms, which many publish on at the same time.
pub(crate) struct ConfirmChannel {
    pub(crate) channel: Channel,
    /// The link that it belongs to.
    pub(crate) link: Arc<Link>,
    /// How many were published. Held while the client takes a message: it counts and writes under two locks, and two tasks at a
    /// time would get the confirmations of each other.
    published: Arc<Mutex<u64>>,
    pending: mpsc::UnboundedSender<Pending>,
}

impl ConfirmChannel {
    pub(super) async fn open(link: &Arc<Link>, limits: &Limits) -> Result<Self, BrokerError> {
        let opening = async {
            let channel = link.client.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(channel)
        };
        let doing = "open a channel to publish on";
        let channel = match timeout(limits.answer, opening).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(failed)) => return Err(error::broker(&failed, doing)),
            Err(_) => return Err(error::timed_out(doing, limits.answer)),
        };
        let (pending, incoming) = mpsc::unbounded_channel();
        let published = Arc::new(Mutex::default());
        tokio::spawn(Collector::new(channel.clone(), Arc::clone(&published), incoming).run());
        Ok(Self { channel, link: Arc::clone(link), published, pending })
    }

    pub(crate) fn is_usable(&self) -> bool {
        self.channel.status().connected()
    }

    pub(super) fn is_usable_on(&self, link: &Link) -> bool {
        self.link.number == link.number && self.is_usable()
    }

    /// Hands a message to the client and returns where the answer comes; gives the message back where the channel has ended.
    pub(super) fn send(
        &self,
        message: Outgoing,
        room: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Answer>, (Box<Outgoing>, OwnedSemaphorePermit)> {
        if !self.is_usable() {
            return Err((Box::new(message), room));
        }
        let Outgoing { exchange, key, mandatory, properties, body } = message;
        let print = Fingerprint::new(exchange.as_str(), key.as_str(), &properties, &body);
        let (answer, answered) = oneshot::channel();
        let channel = self.channel.clone();
        let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
        let mut confirmed: Confirmed =
            Box::pin(async move { channel.basic_publish(exchange, key, options, &body, properties).await?.await });
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        // The client takes the message with the first poll, all of it.
        let polled = confirmed.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        *published += 1;
        let confirmed = match polled {
            Poll::Pending => confirmed,
            // Seldom: it was answered at once, or the channel ended right now.
            Poll::Ready(result) => Box::pin(std::future::ready(result)),
        };
        let pending = Pending { number: *published, print, mandatory, confirmed, answer, room };
        // The collector is there as long as this is; it ends with the runtime.
        let _ = self.pending.send(pending);
        Ok(answered)
    }
}
