use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::context::{ConsumerInfoError, ConsumerInfoErrorKind};
use throughline_core::BrokerError;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use crate::error;
use crate::link::Link;
use crate::renewal::BACK_OFF;

/// After how many answers that the consumer is not there it is believed: a cluster that starts says so for a moment.
const BELIEVED: u32 = 3;

/// How long the server may take to tell about the consumer.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// How long a push consumer without heartbeats may be silent before it is looked after.
const PUSH_SILENCE: Duration = Duration::from_secs(10);

/// Why the server does not know any more what it was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Forgotten {
    /// It was silent, and answers again.
    InSilence,
    /// The client has connected again.
    WithTheConnection,
}

/// Watches over a consumer while no message comes: a server that went away and came back does not know what it was
/// asked for.
pub(super) struct Supervision {
    context: Context,
    stream: String,
    consumer: String,
    /// How long the server may say nothing.
    silence: Duration,
    heard: Instant,
    /// The client's count of connections when the last request was known to the server.
    connects: u64,
    failures: u32,
    missing: u32,
    waits_until: Option<Instant>,
}

impl Supervision {
    pub(super) fn new(link: &Link, info: &Info, pull_heartbeat: Duration) -> Self {
        let is_push = info.config.deliver_subject.is_some();
        let heartbeat = if is_push { info.config.idle_heartbeat } else { pull_heartbeat };
        Self {
            context: link.jetstream.clone(),
            stream: info.stream_name.clone(),
            consumer: info.name.clone(),
            silence: if heartbeat.is_zero() { PUSH_SILENCE } else { heartbeat.saturating_mul(2) },
            heard: Instant::now(),
            connects: link.connects(),
            failures: 0,
            missing: 0,
            waits_until: None,
        }
    }

    /// Notes a sign that all is well.
    pub(super) fn heard(&mut self) {
        self.heard = Instant::now();
        (self.failures, self.missing, self.waits_until) = (0, 0, None);
    }

    /// Notes that the server was asked for messages just now.
    pub(super) fn asked(&mut self) {
        self.heard = Instant::now();
    }

    /// Waits before the server is asked again, longer each time.
    pub(super) fn pause(&mut self) {
        self.failures += 1;
        self.waits_until = Some(Instant::now() + BACK_OFF.longest_delay(self.failures));
    }

    pub(super) const fn is_waiting(&self) -> bool {
        self.waits_until.is_some()
    }

    /// Returns whether what the server was asked for is forgotten, and why. Cancel safe.
    ///
    /// Fails when the consumer is gone for good.
    pub(super) async fn look(&mut self, link: &Link) -> Result<Option<Forgotten>, BrokerError> {
        if !link.is_connected() {
            self.heard = Instant::now();
            return Ok(None);
        }
        let connects = link.connects();
        if connects != self.connects {
            debug!(stream = self.stream, consumer = self.consumer, "connected again, asking for messages anew");
            self.connects = connects;
            self.heard();
            return Ok(Some(Forgotten::WithTheConnection));
        }
        let is_due = match self.waits_until {
            Some(until) => until <= Instant::now(),
            None => self.heard.elapsed() > self.silence,
        };
        if is_due && self.check().await? { Ok(Some(Forgotten::InSilence)) } else { Ok(None) }
    }

    async fn check(&mut self) -> Result<bool, BrokerError> {
        match timeout(ANSWER_WAIT, self.info()).await {
            Ok(Ok(_)) => {
                self.heard = Instant::now();
                (self.missing, self.waits_until) = (0, None);
                return Ok(true);
            }
            Ok(Err(failed)) if is_missing(&failed) && self.missing + 1 >= BELIEVED => {
                return Err(error::consumer_info(failed, &self.stream, &self.consumer));
            }
            Ok(Err(failed)) => {
                self.missing = if is_missing(&failed) { self.missing + 1 } else { 0 };
                let (stream, consumer) = (&self.stream, &self.consumer);
                warn!(stream, consumer, error = %failed, "looking after the consumer failed, trying again");
            }
            Err(_) => warn!(
                stream = self.stream,
                consumer = self.consumer,
                "the server does not answer about the consumer, trying again"
            ),
        }
        self.pause();
        Ok(false)
    }

    /// Asks once what the consumer is like; `None` when there is no answer. Cancel safe.
    pub(super) async fn ask(&self) -> Option<Info> {
        timeout(ANSWER_WAIT, self.info()).await.ok()?.ok()
    }

    async fn info(&self) -> Result<Info, ConsumerInfoError> {
        let stream = self.context.get_stream_no_info(&self.stream).await;
        let stream =
            stream.map_err(|failed| ConsumerInfoError::with_source(ConsumerInfoErrorKind::InvalidName, failed))?;
        stream.consumer_info(&self.consumer).await
    }
}

fn is_missing(failed: &ConsumerInfoError) -> bool {
    matches!(failed.kind(), ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound)
}
