mod caution;
mod consumer;
mod destination;
mod inflow;
mod prefetch;
mod reuse;
mod supervision;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::jetstream::consumer::Info;
use async_trait::async_trait;
use futures_util::FutureExt;
use throughline_core::BrokerError;
use throughline_core::broker::{Observe, Pattern, Received, Reception, Subscriber, Subscription};
use throughline_core::message::Source;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tracing::warn;

pub(crate) use self::consumer::filters;
pub(crate) use self::destination::check_destination;
use self::inflow::{Inflow, is_limit};
use crate::acks::Acks;
use crate::connection::Connection;
use crate::delivery::{LastSubject, StreamPosition, from_stream};
use crate::semconv::WILDCARDS;
use crate::{Stream, semconv};

/// How long the server waits for a settlement when its answer does not say.
const DEFAULT_ACK_WAIT: Duration = Duration::from_secs(30);

/// How often the server is told at most that a message is still wanted.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(10);

/// Receives from a stream through a durable consumer.
///
/// Messages that arrived and were not handed out are in the inflow, which two parties look into: `receive`, which holds
/// it only while it waits for a message that is not there yet, and the keeper, which tells the server that those that
/// are there are still wanted, however long the handlers take.
pub(crate) struct StreamSubscriber {
    inflow: Arc<Mutex<Inflow>>,
    keeper: JoinHandle<()>,
    acks: Arc<Acks>,
    source: Arc<Source>,
    last: LastSubject,
    stream: Arc<str>,
    consumer: Arc<str>,
    records_position: bool,
    headers_only: bool,
    max_deliver: Arc<AtomicI64>,
    max_ack_pending: i64,
    observer: Arc<OnceLock<Arc<dyn Observe>>>,
}

impl StreamSubscriber {
    /// Declares or reuses the stream and the consumer, and starts to receive.
    pub(crate) async fn open(
        connection: &Arc<Connection>,
        subscription: &Subscription,
        stream: &Stream,
    ) -> Result<Self, BrokerError> {
        let wanted = consumer::wanted(connection, subscription, stream)?;
        // Without its inbox, none of the answers that are asked for below arrives.
        connection.link().round_trip().await?;
        connection.denied.check_inbox(&connection.inbox_prefix)?;
        let native = consumer::stream(connection, stream).await?;
        consumer::check_filters(&native, &wanted)?;
        let info = consumer::consumer(&native, stream, &wanted).await?;
        let acks = Arc::new(Acks {
            connection: Arc::clone(connection),
            heartbeat: heartbeat(&info),
            confirmed: stream.confirmed,
        });
        let filters = match consumer::filters(subscription, stream) {
            filters if filters.is_empty() => native
                .cached_info()
                .config
                .subjects
                .iter()
                .map(|subject| Pattern::new(subject.as_str(), WILDCARDS))
                .collect(),
            filters => filters,
        };
        let group = info.config.deliver_group.as_deref();
        let source = semconv::stream_source(&connection.systems.jetstream, &filters, &info.name, group);
        let inflow = Inflow::open(connection, info.clone(), stream.held()).await?;
        let (max_deliver, observer) = (inflow.max_deliver(), inflow.observer());
        let inflow = Arc::new(Mutex::new(inflow));
        Ok(Self {
            keeper: tokio::spawn(keep(Arc::clone(&inflow), Arc::clone(&acks))),
            inflow,
            headers_only: info.config.headers_only,
            max_deliver,
            max_ack_pending: info.config.max_ack_pending,
            observer,
            acks,
            source: Arc::new(source),
            last: LastSubject::new(),
            stream: info.stream_name.as_str().into(),
            consumer: info.name.as_str().into(),
            records_position: connection.records_position,
        })
    }
}

impl StreamSubscriber {
    fn received(&mut self, message: async_nats::Message) -> Received {
        let ack = message.reply.as_ref();
        let is_settled_by_ack = ack.is_some();
        let position = ack.and_then(|ack| StreamPosition::parse(ack, &self.stream, &self.consumer));
        let delivered = position.as_ref().map_or(0, |position| position.delivered);
        let mut delivery =
            from_stream(message, &mut self.last, position, self.records_position, self.acks.connection.reading());
        if self.headers_only {
            delivery = delivery.without_payload();
        }
        if is_limit(self.max_deliver.load(Ordering::Relaxed), delivered) {
            delivery = delivery.with_last_attempt();
        }
        let received = Received::new(delivery);
        if !is_settled_by_ack {
            return received;
        }
        let acks: Arc<Acks> = Arc::clone(&self.acks);
        received.with_settle(acks, 0)
    }
}

#[async_trait]
impl Subscriber for StreamSubscriber {
    fn source(&self) -> Arc<Source> {
        Arc::clone(&self.source)
    }

    fn redelivers(&self) -> bool {
        true
    }

    fn prepare(&mut self, reception: Reception) {
        // Called once.
        let _ = self.observer.set(Arc::clone(reception.observer()));
        let needed = reception.messages_at_once();
        let pending = usize::try_from(self.max_ack_pending).ok().filter(|most| *most > 0);
        if let Some(max_ack_pending) = pending.filter(|most| *most < needed) {
            warn!(
                stream = &*self.stream,
                consumer = &*self.consumer,
                max_ack_pending,
                needed,
                "the consumer's `max_ack_pending` lets fewer messages be handled at the same time than the handler could: raise it"
            );
        }
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        let message = self.inflow.lock().await.next().await?;
        Ok(self.received(message))
    }

    fn try_receive(&mut self) -> Option<Result<Received, BrokerError>> {
        let message = self.inflow.try_lock().ok()?.next().now_or_never()?;
        Some(message.map(|message| self.received(message)))
    }

    /// Gives back what nobody received. What the server would not deliver again is for [`drain`](Self::drain); the keeper goes on
    /// for it.
    async fn close(&mut self, deadline: Instant) {
        let left = self.inflow.lock().await.drain(deadline).await;
        let give_back = async {
            for ack in left.iter().filter_map(|message| message.reply.as_ref()) {
                // Fails only when the connection is gone; then the server delivers again after its wait.
                let _ = self.acks.give_back(ack).await;
            }
        };
        let _ = timeout_at(deadline, give_back).await;
    }

    async fn drain(&mut self) -> Option<Received> {
        let message = self.inflow.lock().await.left()?;
        Some(self.received(message))
    }
}

impl Drop for StreamSubscriber {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Keeps what is held from being delivered again, for as long as the subscriber lives.
async fn keep(inflow: Arc<Mutex<Inflow>>, acks: Arc<Acks>) {
    let mut ticks = interval(acks.heartbeat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Not left out where `receive` has it: it waits only while nothing is held, and this is next when it has a message.
        let mut inflow = inflow.lock().await;
        let tell = async {
            for ack in inflow.held() {
                let _ = acks.keep(&ack).await;
            }
        };
        // Not given back before, or one of them could be told of after it is settled, which would undo the delay of a retry. While the
        // client has no room, since its connection is down, there is nothing to keep.
        let _ = timeout(acks.heartbeat, tell).await;
    }
}

/// A quarter of the shortest wait of the consumer. A message goes from hand to hand once, between two reports of each, and one
/// report may get lost.
fn heartbeat(info: &Info) -> Duration {
    let waits = info.config.backoff.iter().copied().chain([info.config.ack_wait]);
    let shortest = waits.filter(|wait| !wait.is_zero()).min().unwrap_or(DEFAULT_ACK_WAIT);
    if shortest < 4 * SHORTEST_HEARTBEAT {
        warn!(
            stream = info.stream_name,
            consumer = info.name,
            wait = ?shortest,
            "the consumer waits so shortly for a settlement (`ack_wait`, `backoff`) that messages cannot be kept from being \
             delivered again while they are handled: let it wait for a second or more"
        );
    }
    (shortest / 4).max(SHORTEST_HEARTBEAT)
}
