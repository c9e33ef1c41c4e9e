use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, ServerAddr};
use throughline_core::{BoxError, RetryPolicy};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{error, info, warn};

use crate::address;
use crate::link::{Link, Links, Phase};

/// How long a connection that nobody has any more is kept until what was published is written.
const FLUSH_WAIT: Duration = Duration::from_secs(5);

/// How often it is looked at whether the connection task is still there, for a service that only publishes.
const LOOK: Duration = Duration::from_millis(500);

/// After how long without a loss the next one is the first again.
const HEALTHY: Duration = Duration::from_secs(60);

/// How long to wait before the server is asked again, for a connection or for messages.
pub(crate) static BACK_OFF: RetryPolicy =
    RetryPolicy::new().first_delay(Duration::from_millis(250)).max_delay(Duration::from_secs(5));

/// What a connection was made with.
pub(crate) struct Origin {
    pub(crate) addresses: Vec<ServerAddr>,
    pub(crate) options: ConnectOptions,
}

impl Origin {
    /// Connects, also where the options say to do so in the background.
    async fn connect(&self) -> Result<Client, BoxError> {
        let client = self.options.clone().connect(self.addresses.as_slice()).await?;
        // A connection task that has ended again may leave it without an answer.
        timeout(FLUSH_WAIT, client.flush()).await??;
        Ok(client)
    }
}

/// Uses a client that was connected here, and makes another one when its connection task is lost.
pub(crate) fn kept(client: Client, origin: Origin) -> Arc<Links> {
    let (reports, reported) = mpsc::unbounded_channel();
    let links = Arc::new(Links::new(client.clone(), Some(reports)));
    tokio::spawn(keep(Arc::downgrade(&links), client, links.phases(), reported, origin));
    links
}

/// Makes a new link whenever the connection task of the one in use is lost, until the links have ended or nobody has them
/// any more.
///
/// A client that nobody has ends at once, with what it was given and has not written. It is held here until it has.
async fn keep(
    links: Weak<Links>,
    client: Client,
    mut phase: watch::Receiver<Phase>,
    reports: mpsc::UnboundedReceiver<u64>,
    origin: Origin,
) {
    let server = address::shown(&origin.addresses);
    let most = address::configured_reconnects(&origin.options);
    let mut keeper = Keeper { links, client, reports, origin, server, most, pace: Pace::new() };
    tokio::select! {
        _ = phase.wait_for(|phase| *phase == Phase::Ended) => {}
        () = keeper.watch() => {}
    }
    // Whoever closed it has waited for that already, and then this fails at once.
    let _ = timeout(FLUSH_WAIT, keeper.client.flush()).await;
}

struct Keeper {
    links: Weak<Links>,
    /// The client of the link in use.
    client: Client,
    reports: mpsc::UnboundedReceiver<u64>,
    origin: Origin,
    server: String,
    /// How often to try in a row; as often as it takes when the options do not say.
    most: Option<usize>,
    pace: Pace,
}

impl Keeper {
    async fn watch(&mut self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = Told::default();
        loop {
            let reported = tokio::select! {
                reported = self.reports.recv() => reported,
                _ = look.tick() => None,
            };
            let Some(links) = self.links.upgrade() else { return };
            // So that it is known since when the server is away.
            let _ = links.connection();
            let link = links.current();
            // A client that has ended a subscription by itself is done with, whatever else it says. While it is not
            // connected it is not asked: the questions would fill its queue.
            let is_lost = reported == Some(link.number()) || (link.is_connected() && link.is_gone());
            if !is_lost {
                told.tell(&self.server, &link);
                continue;
            }
            if self.has_given_up(&link) {
                links.end();
                return;
            }
            drop((links, link));
            let Some(client) = self.connect().await else { return };
            told = Told::default();
            self.client = client.clone();
            let Some(links) = self.links.upgrade() else { return };
            links.replace(client);
        }
    }

    /// Tells why the connection task ended: in the state `Disconnected` only when the client's own attempts are used up.
    fn has_given_up(&self, link: &Link) -> bool {
        let has_given_up = !link.is_connected();
        if has_given_up {
            error!(server = self.server, "the client has used up its attempts to reconnect to NATS: subscriptions end");
        } else {
            error!(
                server = self.server,
                "the connection task of the NATS client ended, most likely at a header that it cannot read: making a new \
                 connection. What was under way on core NATS is lost, what a stream has not seen settled comes again"
            );
        }
        has_given_up
    }

    async fn connect(&mut self) -> Option<Client> {
        self.pace.lost();
        let mut attempts = 0;
        loop {
            sleep(self.pace.pause()).await;
            attempts += 1;
            let failed = match self.origin.connect().await {
                Ok(client) => {
                    info!(server = self.server, attempts, "connected to NATS anew");
                    self.pace.connected();
                    return Some(client);
                }
                Err(failed) => failed,
            };
            if self.most.is_some_and(|most| attempts >= most) {
                error!(server = self.server, attempts, error = %failed, "cannot connect to NATS anew: subscriptions end");
                if let Some(links) = self.links.upgrade() {
                    links.end();
                }
                return None;
            }
            warn!(server = self.server, attempts, error = %failed, "cannot connect to NATS anew, trying again");
        }
    }
}

/// What the log says of the connection that the client makes again by itself, and tells nobody.
struct Told {
    connects: u64,
    lost: Option<Instant>,
}

impl Default for Told {
    fn default() -> Self {
        Self { connects: 1, lost: None }
    }
}

impl Told {
    fn tell(&mut self, server: &str, link: &Link) {
        if link.is_disconnected() {
            if self.lost.is_none() {
                warn!(
                    server,
                    "the connection to NATS is lost; the client connects again by itself. What was under way on core NATS is lost, \
                     what a stream has not seen settled comes again"
                );
                self.lost = Some(Instant::now());
            }
            return;
        }
        let connects = link.connects();
        if let Some(lost) = self.lost.take() {
            info!(server, seconds = lost.elapsed().as_secs(), "connected to NATS again");
        } else if connects > self.connects {
            // Too short to be seen.
            warn!(
                server,
                "the connection to NATS was lost and made again by the client. What was under way on core NATS is lost, \
                 what a stream has not seen settled comes again"
            );
        }
        self.connects = connects;
    }
}

/// Says how long to wait before the next attempt: the first comes at once, each further one later, until a connection
/// has held.
struct Pace {
    failures: u32,
    connected: Instant,
}

impl Pace {
    fn new() -> Self {
        Self { failures: 0, connected: Instant::now() }
    }

    fn connected(&mut self) {
        self.connected = Instant::now();
    }

    fn lost(&mut self) {
        if self.connected.elapsed() >= HEALTHY {
            self.failures = 0;
        }
    }

    /// Half of it is random, so that services that lost the same server do not come back together.
    fn pause(&mut self) -> Duration {
        let failures = self.failures;
        self.failures = failures.saturating_add(1);
        match failures {
            0 => Duration::ZERO,
            _ => BACK_OFF.delay(failures),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_attempt_is_at_once_and_the_next_ones_wait_longer_up_to_a_limit() {
        let mut pace = Pace::new();
        pace.lost();
        assert_eq!(pace.pause(), Duration::ZERO);
        for longest in [250, 500, 1000, 2000, 4000, 5000, 5000] {
            let (pause, longest) = (pace.pause(), Duration::from_millis(longest));
            assert!(longest / 2 <= pause && pause <= longest, "{pause:?} of {longest:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_lost_again_at_once_is_not_made_again_at_once() {
        let mut pace = Pace::new();
        pace.lost();
        let _ = pace.pause();
        pace.connected();
        pace.lost();
        assert!(pace.pause() >= BACK_OFF.longest_delay(1) / 2);
        pace.connected();
        tokio::time::advance(HEALTHY).await;
        pace.lost();
        assert_eq!(pace.pause(), Duration::ZERO);
    }
}
