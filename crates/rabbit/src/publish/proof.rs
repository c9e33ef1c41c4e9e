use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, ExchangeKind};
use throughline_core::BrokerError;
use throughline_core::broker::{BrokerErrorKind, Existence, Outbound, OutboundUse};
use tokio::time::timeout;

use super::channel::ConfirmChannel;
use crate::destination::Address;
use crate::error;
use crate::link::{Link, Links};
use crate::names::short;
use crate::options::Limits;

/// Which exchanges the server is known to take messages for.
///
/// The server answers a publish that it refuses by closing the channel. The client's answer overtakes what it has queued for that channel,
/// which then ends the whole connection. So the first message to an exchange goes alone, over a channel where nothing else is queued.
#[derive(Default)]
pub(super) struct Proof {
    known: Mutex<(u64, HashSet<String>)>,
    /// The channel for one message at a time.
    pub(super) alone: tokio::sync::Mutex<Option<ConfirmChannel>>,
}

impl Proof {
    pub(super) fn has(&self, link: &Link, exchange: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.0 == link.number && known.1.contains(exchange)
    }

    pub(super) fn note(&self, link: &Link, exchange: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != link.number {
            *known = (link.number, HashSet::new());
        }
        known.1.insert(exchange.to_owned());
    }

    /// Forgets all where the server has closed a shared channel: an exchange may be gone.
    pub(super) fn forget_if_closed(&self, channel: &ConfirmChannel) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 == channel.link.number && !channel.is_usable() {
            known.1.clear();
        }
    }
}

/// Asks whether a destination exists, on a channel of its own.
pub(super) async fn ask(links: &Links, limits: &Limits, outbound: &Outbound<'_>) -> Result<Existence, BrokerError> {
    let address = Address::of(outbound.destination);
    let asking = async {
        let link = links.connected().await?;
        let channel = link.client.create_channel().await.map_err(|failed| error::broker(&failed, "open a channel"))?;
        let asked = declared(&channel, &address).await?;
        if channel.status().connected() {
            let _ = channel.close(200, "asked".into()).await;
        }
        Ok::<_, BrokerError>(asked)
    };
    match timeout(limits.answer, asking).await {
        Ok(Ok(Ok(()))) => Ok(Existence::Usable),
        Ok(Ok(Err(failed))) if error::reply_code(&failed) == Some(404) => Err(missing(outbound, &address, &failed)),
        // Somebody else's exclusive queue: it is there.
        Ok(Ok(Err(failed))) if error::reply_code(&failed) == Some(405) => Ok(Existence::Usable),
        Ok(Ok(Err(failed))) => Ok(Existence::Unknown(error::broker(&failed, &asking_for(&address)))),
        Ok(Err(failed)) => match failed.kind() {
            BrokerErrorKind::Configuration => Err(failed),
            _ => Ok(Existence::Unknown(failed)),
        },
        Err(_) => Ok(Existence::Unknown(error::timed_out(&asking_for(&address), limits.answer))),
    }
}

async fn declared(channel: &Channel, address: &Address<'_>) -> Result<lapin::Result<()>, BrokerError> {
    if address.exchange.is_empty() {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = short("queue", address.key)?;
        return Ok(channel.queue_declare(queue, options, FieldTable::default()).await.map(drop));
    }
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let exchange = short("exchange", address.exchange)?;
    Ok(channel.exchange_declare(exchange, ExchangeKind::Direct, options, FieldTable::default()).await)
}

fn asking_for(address: &Address<'_>) -> String {
    match address.exchange {
        "" => format!("ask for queue `{}`", address.key),
        exchange => format!("ask for exchange `{exchange}`"),
    }
}

fn missing(outbound: &Outbound<'_>, address: &Address<'_>, failed: &lapin::Error) -> BrokerError {
    let setting = match outbound.used_for {
        OutboundUse::DeadLetter => "dead_letter",
        _ => "reply_to",
    };
    let of = outbound.subscription;
    let message = match address.exchange {
        "" => format!(
            "queue `{}` does not exist, and `{setting}` of {of} sends messages there: declare it (`Queue::new(\"{0}\")` \
             in a service that reads it, or the server's tools), or correct the name",
            address.key
        ),
        exchange => format!(
            "exchange `{exchange}` does not exist, and `{setting}` of {of} sends messages there: declare it, or correct the name"
        ),
    };
    BrokerError::new(BrokerErrorKind::NotFound, error::error_type(failed), message).with_source(failed.clone())
}
