//! Where finished spans go, and how a test waits for them.

use std::sync::{Arc, Mutex};

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::sync::Notify;

use super::lock::lock;

/// A span exporter that keeps the spans and wakes those who wait for one. Clones share the spans.
#[derive(Clone, Debug, Default)]
pub(super) struct SpanSink {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    spans: Mutex<Vec<SpanData>>,
    ended: Notify,
}

impl SpanSink {
    pub(super) fn finished(&self) -> Vec<SpanData> {
        lock(&self.shared.spans).clone()
    }

    pub(super) fn clear(&self) {
        lock(&self.shared.spans).clear();
    }

    /// Resolves with the finished spans once `ready` holds for them.
    pub(super) async fn until(&self, ready: impl Fn(&[SpanData]) -> bool) -> Vec<SpanData> {
        loop {
            // Made before looking: it is woken by each span that ends from now on.
            let ended = self.shared.ended.notified();
            let spans = self.finished();
            if ready(&spans) {
                return spans;
            }
            ended.await;
        }
    }
}

impl SpanExporter for SpanSink {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        lock(&self.shared.spans).extend(batch);
        self.shared.ended.notify_waiters();
        Ok(())
    }
}
