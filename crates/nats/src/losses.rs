use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use throughline_core::broker::{Observe, Seldom};
use throughline_core::message::Source;
use throughline_core::telemetry::semconv::{
    MESSAGING_CONSUMER_GROUP_NAME, MESSAGING_DESTINATION_NAME, MESSAGING_DESTINATION_TEMPLATE, MESSAGING_SYSTEM,
};
use tokio::time::Instant;
use tracing::warn;

use crate::semconv::{CONSUMER_DROPPED, SYSTEM};

/// For how long nothing is dropped until that counts as over.
const OVER: Duration = Duration::from_secs(10);

/// Tells of messages that a subscription to core NATS has received and nobody handles: each is gone.
pub(crate) struct Losses {
    subject: Arc<str>,
    group: Option<String>,
    buffer: usize,
    seldom: Mutex<Seldom>,
    counter: OnceLock<Counter<u64>>,
    attributes: OnceLock<Vec<KeyValue>>,
    observer: OnceLock<Arc<dyn Observe>>,
    /// When messages were dropped last, until the app is told that it is over.
    last: Mutex<Option<Instant>>,
}

impl Losses {
    pub(crate) fn new(subject: Arc<str>, group: Option<String>, buffer: usize) -> Self {
        Self {
            subject,
            group,
            buffer,
            seldom: Mutex::default(),
            counter: OnceLock::new(),
            attributes: OnceLock::new(),
            observer: OnceLock::new(),
            last: Mutex::default(),
        }
    }

    /// Counts them from now on, and lets the app know.
    pub(crate) fn observe(&self, source: &Source, observer: Arc<dyn Observe>) {
        let mut attributes = vec![KeyValue::new(MESSAGING_SYSTEM, SYSTEM)];
        match (&source.template, &source.destination) {
            (Some(template), _) => attributes.push(KeyValue::new(MESSAGING_DESTINATION_TEMPLATE, Arc::clone(template))),
            (None, Some(name)) => attributes.push(KeyValue::new(MESSAGING_DESTINATION_NAME, Arc::clone(name))),
            (None, None) => {}
        }
        if let Some(group) = &source.group {
            attributes.push(KeyValue::new(MESSAGING_CONSUMER_GROUP_NAME, Arc::clone(group)));
        }
        // A subscription is observed once.
        let _ = self.attributes.set(attributes);
        let _ = self.observer.set(observer);
        // Made now where that can be, so that it is there before the first loss.
        let _ = self.counter();
    }

    /// Returns the counter; where nobody measured until now, it is asked for again.
    fn counter(&self) -> Option<&Counter<u64>> {
        if let Some(counter) = self.counter.get() {
            return Some(counter);
        }
        let meter = self.observer.get()?.meter()?;
        let counter = meter
            .u64_counter(CONSUMER_DROPPED)
            .with_unit("{message}")
            .with_description("Messages that arrived on core NATS and were dropped before a handler took them.")
            .build();
        Some(self.counter.get_or_init(|| counter))
    }

    /// Notes messages for which there was no room; 0 tells of those before when it is time.
    pub(crate) fn no_room(&self, count: u64) {
        self.count(count);
        self.show(count);
        let dropped = self.seldom.lock().unwrap_or_else(PoisonError::into_inner).note(count);
        if let Some(dropped) = dropped {
            self.tell_of_no_room(dropped);
        }
    }

    /// Shows in the health of the app that messages are dropped, and after a while without that it is over.
    fn show(&self, count: u64) {
        let Some(observer) = self.observer.get() else { return };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if count > 0 {
            if last.replace(Instant::now()).is_none() {
                observer.degraded(Some("messages are dropped: they come faster than they are handled".into()));
            }
        } else if last.is_some_and(|last| last.elapsed() >= OVER) {
            *last = None;
            observer.degraded(None);
        }
    }

    fn tell_of_no_room(&self, dropped: u64) {
        warn!(
            destination = &*self.subject,
            group = self.group,
            dropped,
            buffer = self.buffer,
            "messages were dropped: they come faster than they are handled, and core NATS delivers none again. Let more be \
             handled at a time, raise `Subject::buffer`, or use a stream"
        );
    }

    /// Notes messages that had arrived when the subscription ended.
    pub(crate) fn ended(&self, count: u64) {
        self.count(count);
        let untold = self.seldom.lock().unwrap_or_else(PoisonError::into_inner).take();
        if untold > 0 {
            self.tell_of_no_room(untold);
        }
        if count > 0 {
            warn!(
                destination = &*self.subject,
                group = self.group,
                dropped = count,
                "the subscription ended before messages that had arrived were handled: they are lost, core NATS delivers none \
                 again"
            );
        }
    }

    fn count(&self, count: u64) {
        if count > 0
            && let (Some(counter), Some(attributes)) = (self.counter(), self.attributes.get())
        {
            counter.add(count, attributes);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// Collects what the app is told.
    #[derive(Default)]
    struct Told(Mutex<Vec<bool>>);

    impl Observe for Told {
        fn meter(&self) -> Option<opentelemetry::metrics::Meter> {
            None
        }

        fn settled(
            &self,
            _started: std::time::Instant,
            _destination: Option<&str>,
            _attributes: Vec<KeyValue>,
            _error: Option<&throughline_core::BrokerError>,
        ) {
        }

        fn degraded(&self, why: Option<std::borrow::Cow<'static, str>>) {
            self.0.lock().unwrap().push(why.is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_app_hears_when_messages_are_dropped_and_when_no_more_are() {
        let (losses, told) = (Losses::new("orders".into(), None, 8), Arc::new(Told::default()));
        let system = throughline_core::message::System::new(SYSTEM, throughline_core::message::Operations::DEFAULT);
        losses.observe(&Source::new(Arc::new(system)), Arc::clone(&told) as Arc<dyn Observe>);
        losses.no_room(0);
        losses.no_room(3);
        losses.no_room(4);
        assert_eq!(*told.0.lock().unwrap(), [true]);
        advance(OVER).await;
        losses.no_room(0);
        losses.no_room(0);
        assert_eq!(*told.0.lock().unwrap(), [true, false]);
    }
}
