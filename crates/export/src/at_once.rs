//! Runs what blocks on threads of its own, and waits for all of it no longer than it may take.

use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};

use crate::providers::End;

/// Runs these at the same time, until then at the latest. What takes longer goes on by itself and counts as failed.
pub(crate) fn at_once(ends: Vec<End>, until: Instant) -> Vec<OTelSdkResult> {
    let (sender, results) = mpsc::channel();
    for end in ends {
        let ended = sender.clone();
        let run = move || {
            // Nobody waits any more where it took too long.
            let _ = ended.send(end());
        };
        if let Err(error) = thread::Builder::new().name("throughline-end".to_owned()).spawn(run) {
            let _ = sender.send(Err(OTelSdkError::InternalFailure(format!("no thread to end on: {error}"))));
        }
    }
    drop(sender);
    let begun = Instant::now();
    let mut ended = Vec::new();
    loop {
        match results.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(result) => ended.push(result),
            Err(mpsc::RecvTimeoutError::Disconnected) => return ended,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                ended.push(Err(OTelSdkError::Timeout(until.saturating_duration_since(begun))));
                return ended;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_hangs_is_not_waited_for_and_the_rest_is() {
        let (release, hang) = mpsc::channel::<()>();
        let hangs: End = Box::new(move || {
            let _ = hang.recv();
            Ok(())
        });
        let ended = at_once(vec![hangs, Box::new(|| Ok(()))], Instant::now() + Duration::from_millis(200));
        assert!(matches!(ended.as_slice(), [Ok(()), Err(OTelSdkError::Timeout(_))]), "{ended:?}");
        drop(release);
        let ended = at_once(vec![Box::new(|| Ok(())), Box::new(|| Ok(()))], Instant::now() + Duration::from_secs(60));
        assert!(matches!(ended.as_slice(), [Ok(()), Ok(())]), "{ended:?}");
    }
}
