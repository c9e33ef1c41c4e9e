use std::sync::Arc;
use std::time::Duration;

use lapin::options::BasicQosOptions;
use lapin::{Channel, Consumer};
use throughline_core::BrokerError;
use throughline_core::broker::{BrokerErrorKind, Observe};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::caution::Caution;
use super::session::{Place, Session};
use crate::connection::Connection;
use crate::delivery::{ReadFrom, Reading};
use crate::link::Link;
use crate::names::short;
use crate::subscription::{Queue, StreamOffset};
use crate::{error, topology};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A consumer that delivers.
pub(super) struct Active {
    pub(super) session: Arc<Session>,
    pub(super) consumer: Consumer,
    pub(super) reading: Reading,
    /// The connection, where it is not that of all. Closed when it is dropped.
    _own: Option<Arc<Link>>,
}

/// A channel on which all is declared.
pub(super) struct Declared {
    pub(super) channel: Channel,
    pub(super) name: Arc<str>,
    own: Option<Arc<Link>>,
}

/// Makes the consumer of a subscription, the first time and each time it is lost.
#[derive(Clone)]
pub(super) struct Opening {
    pub(super) connection: Arc<Connection>,
    pub(super) queue: Arc<Queue>,
    pub(super) prefetch: u16,
    pub(super) observer: Option<Arc<dyn Observe>>,
    /// Where a stream goes on; `None` until it was read.
    pub(super) goes_on: Option<StreamOffset>,
    pub(super) caution: Caution,
}

impl Opening {
    /// Opens a channel and declares all that the subscription needs.
    pub(super) async fn declare(&self) -> Result<Declared, BrokerError> {
        let links = &self.connection.consuming;
        let link = if self.caution.is_apart() { links.beside().await? } else { links.connected().await? };
        let wait = self.connection.limits.answer;
        let channel = match timeout(wait, link.client.create_channel()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(failed)) => return Err(error::broker(&failed, &format!("open a channel for {}", self.queue))),
            Err(_) => return Err(error::timed_out(&format!("open a channel for {}", self.queue), wait)),
        };
        let name = topology::declare(&channel, &self.queue, &self.connection.limits).await?;
        Ok(Declared { channel, name, own: self.caution.is_apart().then_some(link) })
    }

    /// Begins to consume on such a channel. Where the server does not answer, the channel is dropped, and with it a consumer that may come
    /// later.
    pub(super) async fn consume(&self, declared: Declared) -> Result<Active, BrokerError> {
        let Declared { channel, name, own } = declared;
        let doing = format!("consume from {}", self.queue);
        let (queue, tag) = (short("queue", &name)?, short("consumer tag", &self.queue.unique_tag())?);
        let consuming = async {
            let prefetch = if self.caution.is_apart() { 1 } else { self.prefetch };
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let (options, arguments) = (self.queue.consume_options(), self.queue.consume_arguments(self.goes_on));
            channel.basic_consume(queue, tag, options, arguments).await
        };
        let consumer = match timeout(self.connection.limits.answer, consuming).await {
            Ok(Ok(consumer)) => consumer,
            Ok(Err(failed)) => return Err(topology::consume_error(&failed, &self.queue, &name)),
            Err(_) => {
                let _ = timeout(Duration::from_secs(1), channel.close(200, "no answer".into())).await;
                return Err(error::timed_out(&doing, self.connection.limits.answer));
            }
        };
        let place = self.place(&name);
        let from = ReadFrom {
            queue: Arc::clone(&name),
            counts: self.queue.is_quorum(),
            most_deliveries: self.queue.most_deliveries(),
            is_stream: self.queue.is_stream(),
        };
        let (session, reading) = (Session::start(channel, place), Reading::new(Arc::new(from)));
        Ok(Active { session, consumer, reading, _own: own })
    }

    fn place(&self, name: &Arc<str>) -> Place {
        let copies = (!self.queue.retries_in_place())
            .then(|| Arc::new(super::copies::Copies::new(&self.connection, name, self.queue.is_quorum())));
        let most_held = if copies.is_some() { usize::from(self.prefetch / 2) } else { usize::MAX };
        Place { queue: Arc::clone(name), copies, counts: self.queue.is_quorum(), most_held }
    }

    /// Makes a consumer that was lost again, however long it takes. Fails where another attempt must fail too.
    pub(super) async fn again(self, why: String) -> Result<Active, BrokerError> {
        match self.caution.losses() {
            0 => {
                warn!(destination = %self.queue, cause = %why, "a consumer of RabbitMQ is lost: it is made again");
                self.tell(Some(format!("no consumer: {why}")));
            }
            losses => self.report_unreadable(losses),
        }
        sleep(self.caution.pause()).await;
        self.make().await
    }

    /// Tells of a queue with a message that the client cannot read.
    fn report_unreadable(&self, losses: u32) {
        let cause = format!(
            "{} holds a message that the client cannot read: its key, an id or a header name is not UTF-8",
            self.queue
        );
        if losses.is_power_of_two() {
            tracing::error!(
                destination = %self.queue,
                losses,
                again_after = ?self.caution.pause(),
                %cause,
                "this subscription stands still until the message is gone, the others go on: remove it with the server's tools or another \
                 client, or let a quorum queue with a delivery limit dead-letter it"
            );
        }
        self.tell(Some(format!("{cause}: remove it with the server's tools or another client")));
    }

    /// Makes the consumer, however long it takes. Fails where another attempt must fail too.
    pub(super) async fn make(self) -> Result<Active, BrokerError> {
        let (began, mut pause, mut attempts) = (Instant::now(), FIRST_PAUSE, 0_u64);
        let mut lock = Lock { since: None, wait: self.connection.limits.heartbeat * 2 + Duration::from_secs(5) };
        loop {
            let opened = match self.declare().await {
                Ok(declared) => self.consume(declared).await,
                Err(failed) => Err(failed),
            };
            match opened {
                Ok(active) => {
                    let seconds = began.elapsed().as_secs();
                    info!(destination = %self.queue, seconds, "a consumer of RabbitMQ was made again");
                    // With the message it is healthy when one has come.
                    if self.caution.losses() == 0 {
                        self.tell(None);
                    }
                    return Ok(active);
                }
                Err(failed) if is_final(&failed) && !lock.may_end(&failed) => return Err(failed),
                Err(failed) => {
                    attempts += 1;
                    if attempts.is_power_of_two() {
                        warn!(destination = %self.queue, attempts, cause = %failed, "a consumer could not be made: it is tried again");
                    }
                    self.tell(Some(format!("no consumer: {failed}")));
                }
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    pub(super) fn tell(&self, why: Option<String>) {
        if let Some(observer) = &self.observer {
            observer.degraded(why.map(Into::into));
        }
    }
}

/// Tells whether another attempt must fail too.
pub(super) fn is_final(failed: &BrokerError) -> bool {
    use BrokerErrorKind::{Configuration, Ended, Unauthorized, Unsupported};
    matches!(failed.kind(), Configuration | Ended | Unauthorized | Unsupported)
}

/// A queue that the server still keeps for the lost connection: it lets it go when it has noticed the loss.
struct Lock {
    since: Option<Instant>,
    wait: Duration,
}

impl Lock {
    /// Tells whether it is worth waiting for the end of the lock, from the first refusal on.
    fn may_end(&mut self, failed: &BrokerError) -> bool {
        topology::is_locked(failed) && self.since.get_or_insert_with(Instant::now).elapsed() < self.wait
    }
}
