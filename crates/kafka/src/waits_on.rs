use std::sync::Arc;
use std::time::Duration;

use throughline_core::broker::{Publish, Received};
use throughline_core::{Envelope, Settlement};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, error, warn};

use crate::connection::Connection;
use crate::outage::Repeats;
use crate::publisher::KafkaPublisher;
use crate::subscription::{WaitsOn, waiting_in};

/// How long to wait before a message is written again that could not be; also how soon it is noticed that another member gets it.
const AGAIN: Duration = Duration::from_millis(500);

/// Writes messages that are to wait longer than their retry topic's delay into it once more, so that they hold up none of the others.
///
/// That is no publish of the service: the message has the attempt and the trace that it had, and no span of its own.
pub(crate) struct WaitsOnAgain {
    publisher: Arc<KafkaPublisher>,
    repeats: Arc<Repeats<()>>,
    under_way: JoinSet<()>,
}

impl WaitsOnAgain {
    pub(crate) fn new(connection: &Connection) -> Self {
        let publisher = Arc::new(KafkaPublisher { connection: Arc::new(connection.clone()) });
        Self { publisher, repeats: Arc::default(), under_way: JoinSet::new() }
    }

    /// Takes a message that goes on waiting; returns one that is for the handler.
    pub(crate) fn take(&mut self, received: Received) -> Option<Received> {
        let Some(WaitsOn(rest)) = received.delivery.extension::<WaitsOn>().copied() else { return Some(received) };
        while let Some(done) = self.under_way.try_join_next() {
            if done.is_err_and(|failed| failed.is_panic()) {
                error!("what writes a message into its retry topic again panicked; the message is read again");
            }
        }
        let (publisher, repeats) = (Arc::clone(&self.publisher), Arc::clone(&self.repeats));
        self.under_way.spawn(write_again(publisher, repeats, received, rest));
        None
    }

    /// Gives up what is under way: it is read again.
    pub(crate) fn close(&mut self) {
        self.under_way.abort_all();
    }
}

async fn write_again(
    publisher: Arc<KafkaPublisher>,
    repeats: Arc<Repeats<()>>,
    mut received: Received,
    rest: Duration,
) {
    let topic = received.delivery.destination().to_owned();
    // Another member gets it otherwise.
    while !received.is_withdrawn() {
        let envelope = Envelope::forward(&received.delivery, waiting_in(topic.clone(), Some(rest)));
        match publisher.publish(envelope).await {
            Ok(_) => {
                if let Err(failed) = received.settle(&Settlement::Ack).await {
                    debug!(topic, error = %failed, "a message that goes on waiting comes twice");
                }
                return;
            }
            Err(failed) => {
                if let Some(left_out) = repeats.admit(()) {
                    warn!(
                        topic, left_out, error = %failed,
                        "a message is to wait longer and could not be written into its retry topic again; that is tried again"
                    );
                }
                sleep(AGAIN).await;
            }
        }
    }
}
