//! What an app is at, for the text of a test that waits in vain.

use std::fmt::Write as _;

use throughline_core::serve::{Health, HealthState};
use throughline_memory::Memory;

/// How many messages are listed at most.
const MOST: usize = 20;

/// Describes the open messages, the connection and the subscriptions that do not run, one on each line.
pub(crate) fn report(broker: &Memory, health: &Health) -> String {
    let mut text = String::new();
    let mut line = |line: &dyn std::fmt::Display| {
        // Writing to a string does not fail.
        let _ = write!(text, "\n  - {line}");
    };
    if broker.is_disconnected() {
        line(&"the connection of the app is lost, see `disconnect`");
    }
    for subscription in health.subscriptions() {
        match subscription.state {
            HealthState::Ready => {}
            state => line(&format_args!("the subscription to `{}` is {state:?}", subscription.destination)),
        }
    }
    let open = broker.open();
    open.iter().take(MOST).for_each(|message| line(message));
    if let Some(more) = open.len().checked_sub(MOST).filter(|more| *more > 0) {
        line(&format_args!("and {more} messages more"));
    }
    text
}
