use std::sync::Arc;

use lapin::Channel;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use throughline_core::BrokerError;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Outgoing;
use super::confirms::{Answered, Confirms};
use super::fingerprint::Fingerprint;
use crate::error;
use crate::link::Link;
use crate::options::Limits;

/// A channel with confirms, which many publish on at the same time.
#[derive(Clone)]
pub(crate) struct ConfirmChannel {
    /// Shared: a clone of it has many parts.
    pub(crate) channel: Arc<Channel>,
    /// The link that it belongs to.
    pub(crate) link: Arc<Link>,
    confirms: Arc<Confirms>,
}

impl ConfirmChannel {
    /// Opens it. `room` is what publishes on it take until they are confirmed.
    pub(super) async fn open(link: &Arc<Link>, limits: &Limits, room: &Arc<Semaphore>) -> Result<Self, BrokerError> {
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
        let confirms = Confirms::new(Arc::clone(room), limits.confirm);
        tokio::spawn(Arc::clone(&confirms).rest(Arc::clone(&link.given_up)));
        Ok(Self { channel: Arc::new(channel), link: Arc::clone(link), confirms })
    }

    pub(crate) fn is_usable(&self) -> bool {
        !self.confirms.is_left() && self.link.given_up.why().is_none() && self.channel.status().connected()
    }

    /// Takes no further message, and tells whether it took none before.
    pub(super) fn leave(&self) -> bool {
        self.confirms.leave()
    }

    /// Tells whether the server has answered all that was published.
    pub(super) fn is_answered(&self) -> bool {
        self.confirms.is_answered()
    }

    pub(super) fn is_usable_on(&self, link: &Link) -> bool {
        self.link.number == link.number && self.is_usable()
    }

    /// Hands a message to the client and returns where the answer comes; gives the message back where the channel has ended.
    ///
    /// What it takes of the room comes back with the answer: the caller has it, and forgets it then.
    pub(super) fn send(&self, message: Outgoing) -> Result<Answered, Box<Outgoing>> {
        if !self.is_usable() {
            return Err(Box::new(message));
        }
        let Outgoing { exchange, key, mandatory, properties, body } = message;
        let print = Fingerprint::new(exchange.as_str(), key.as_str(), &properties, &body);
        let channel = Arc::clone(&self.channel);
        let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
        let confirmed =
            Box::pin(async move { channel.basic_publish(exchange, key, options, &body, properties).await?.await });
        Ok(self.confirms.publish(confirmed, print, mandatory))
    }
}
