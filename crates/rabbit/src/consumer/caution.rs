use std::time::Duration;

use tokio::time::Instant;

/// How long the first and the longest pause are before the queue with the message is read again.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// After how long without a message the queue is taken to hold none that was under way with the unreadable one.
const QUIET: Duration = Duration::from_secs(2);

/// How long the queue that had the message stays apart at least.
const PROBATION: Duration = Duration::from_secs(60);

/// Finds the subscription whose queue holds a message that the client cannot read, and keeps the others away from it.
///
/// Such a message, with a key, an id or a header name that is not UTF-8, ends the connection with the consumers of all subscriptions, and the
/// server delivers it again on the next one. The client does not say whose it was. So each subscription that has lost its consumer that way
/// goes on over a connection of its own, with one message at a time. Only the one with the message loses that too, and no other message
/// with it. It tries again, ever more seldom. The others return to the connection of all when as many messages have come as were under way,
/// or when none is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Caution(Option<Apart>);

/// A subscription with a connection of its own.
#[derive(Clone, Debug)]
struct Apart {
    /// How often in a row it has lost that one.
    losses: u32,
    /// How many messages have come since the last loss.
    arrived: u32,
    lost: Instant,
    /// When the last message came, or the consumer was made.
    active: Instant,
}

impl Caution {
    /// Notes that the consumer was lost, because of what the client cannot read or for another reason.
    pub(super) fn lost(&mut self, is_unreadable: bool) {
        let now = Instant::now();
        match &mut self.0 {
            Some(apart) if is_unreadable => {
                *apart = Apart { losses: apart.losses.saturating_add(1), arrived: 0, lost: now, active: now };
            }
            None if is_unreadable => self.0 = Some(Apart { losses: 0, arrived: 0, lost: now, active: now }),
            _ => {}
        }
    }

    /// Notes that there is a consumer again.
    pub(super) fn opened(&mut self) {
        if let Some(apart) = &mut self.0 {
            apart.active = Instant::now();
        }
    }

    /// Notes a message that came. Returns whether it is time to return to the connection of all, and to read so many at a time.
    pub(super) fn arrived(&mut self, prefetch: u16) -> bool {
        let Some(apart) = &mut self.0 else { return false };
        apart.active = Instant::now();
        apart.arrived = apart.arrived.saturating_add(1);
        apart.arrived > u32::from(prefetch) && apart.is_over()
    }

    /// Returns when it is time to return if no message comes before; `None` where there is nothing to return from.
    pub(super) fn quiet_at(&self) -> Option<Instant> {
        let apart = self.0.as_ref()?;
        let least = if apart.losses == 0 { Duration::ZERO } else { PROBATION };
        Some((apart.active + QUIET).max(apart.lost + least))
    }

    /// Tells whether the subscription has a connection of its own.
    pub(super) const fn is_apart(&self) -> bool {
        self.0.is_some()
    }

    /// Returns how often in a row it has lost a connection that was its own.
    pub(super) fn losses(&self) -> u32 {
        self.0.as_ref().map_or(0, |apart| apart.losses)
    }

    /// Returns how long to wait before the next consumer is made: each time twice as long.
    pub(super) fn pause(&self) -> Duration {
        match self.losses() {
            0 => Duration::ZERO,
            losses => (FIRST_PAUSE * 2_u32.pow(losses.min(10) - 1)).min(LONGEST_PAUSE),
        }
    }
}

impl Apart {
    fn is_over(&self) -> bool {
        self.losses == 0 || self.lost.elapsed() >= PROBATION
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn after(losses: &[bool]) -> Caution {
        let mut caution = Caution::default();
        losses.iter().for_each(|is_unreadable| caution.lost(*is_unreadable));
        caution
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_loss_gets_a_connection_and_the_next_ones_are_its_own() {
        let steps = |losses: &[bool]| (after(losses).is_apart(), after(losses).losses());
        assert_eq!(steps(&[false, false]), (false, 0));
        assert_eq!(steps(&[true]), (true, 0), "it may be the message of another subscription");
        assert_eq!(steps(&[true, false]), (true, 0), "a server that was stopped has not read it either");
        assert_eq!(steps(&[true, true, false, true]), (true, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_read_again_ever_more_seldom() {
        let pause = |losses: usize| after(&vec![true; losses]).pause();
        assert_eq!([pause(0), pause(1)], [Duration::ZERO; 2]);
        assert_eq!([pause(2), pause(3), pause(100)], [FIRST_PAUSE, FIRST_PAUSE * 2, LONGEST_PAUSE]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_returns_after_as_many_messages_as_were_under_way_or_when_none_comes() {
        let mut innocent = after(&[true]);
        assert!((0..16).all(|_| !innocent.arrived(16)) && innocent.arrived(16));
        assert_eq!(innocent.quiet_at(), Some(Instant::now() + QUIET));
        let mut culprit = after(&[true, true]);
        assert!((0..17).all(|_| !culprit.arrived(16)), "the message may come again");
        assert_eq!(culprit.quiet_at(), Some(Instant::now() + PROBATION));
        advance(PROBATION).await;
        assert!(culprit.arrived(16));
        assert!(!Caution::default().arrived(0) && Caution::default().quiet_at().is_none());
    }
}
