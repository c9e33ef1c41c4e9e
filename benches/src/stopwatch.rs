//! What one round of a program on a real server took: time, and processor time of this process.

use std::time::{Duration, Instant};

/// What one round took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// Messages that went through in a second.
    pub(crate) per_second: f64,
    /// Microseconds of processor time that a message took; `None` where the system does not say it.
    pub(crate) processor: Option<f64>,
}

/// The beginning of a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch {
    begun: Instant,
    processor: Option<Duration>,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { begun: Instant::now(), processor: processor_time() }
    }

    /// Ends a round of so many messages.
    #[allow(clippy::cast_precision_loss)] // there are far fewer than 2^52
    pub(crate) fn stop(self, messages: usize) -> Round {
        let (taken, messages) = (self.begun.elapsed(), messages as f64);
        let used = processor_time().zip(self.processor).map(|(now, before)| now.saturating_sub(before));
        Round {
            per_second: messages / taken.as_secs_f64(),
            processor: used.map(|used| used.as_secs_f64() * 1e6 / messages),
        }
    }
}

/// Returns what all threads of this process have used so far, in the program itself and in the kernel.
#[cfg(unix)]
fn processor_time() -> Option<Duration> {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike;

    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let used = usage.user_time() + usage.system_time();
    Some(Duration::from_micros(used.num_microseconds().try_into().ok()?))
}

#[cfg(not(unix))]
fn processor_time() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::thread;

    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_thread_that_computes_uses_the_processor_and_one_that_sleeps_does_not() {
        let watch = Stopwatch::start();
        thread::sleep(Duration::from_millis(20));
        let asleep = watch.stop(1).processor.unwrap();
        let watch = Stopwatch::start();
        let end = Instant::now() + Duration::from_millis(200);
        thread::spawn(move || while black_box(Instant::now()) < end {}).join().unwrap();
        let round = watch.stop(2);
        assert!(round.per_second < 11.0);
        assert!(round.processor.unwrap() * 2.0 > asleep, "an ended thread counts");
    }
}
