//! Counts what becomes of spans, log records and metrics on their way to an exporter.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::logs::Severity;
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter, LogProcessor, SdkLogRecord};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};

use crate::one_line::one_line;
use crate::rejections::{Rejected, Rejections};

/// How long a trouble is not told again.
const SELDOM: Duration = Duration::from_secs(60);

/// What became of the items of one signal.
#[derive(Debug)]
pub(crate) struct Tally {
    /// What is counted, in the plural, for the log.
    items: &'static str,
    /// Where they go, for the log.
    target: String,
    started: AtomicU64,
    ended: AtomicU64,
    waiting: AtomicUsize,
    /// They left the room for an export.
    handed_over: AtomicU64,
    exported: AtomicU64,
    /// There was no room for them.
    refused: AtomicU64,
    /// Their export failed.
    failed: AtomicU64,
    /// The backend refused them in an export that it took.
    rejected: AtomicU64,
    told: Mutex<Told>,
}

/// What the log has of losses.
#[derive(Debug, Default)]
struct Told {
    /// When a loss was last told.
    last: Option<Instant>,
    /// Whether that was an export that failed, and none has succeeded since.
    is_failing: bool,
    /// When words of a backend were last passed on.
    advised: Option<Instant>,
}

impl Tally {
    pub(crate) fn new(items: &'static str, target: String) -> Arc<Self> {
        Arc::new(Self {
            items,
            target,
            started: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            handed_over: AtomicU64::new(0),
            exported: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            told: Mutex::default(),
        })
    }

    /// What was delivered.
    pub(crate) fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// What ended and was not delivered: to be asked after the last export.
    pub(crate) fn dropped(&self) -> u64 {
        self.ended.load(Ordering::Relaxed).saturating_sub(self.exported())
    }

    /// What there was no room for.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// What left for an export.
    #[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
    pub(crate) fn handed_over(&self) -> u64 {
        self.handed_over.load(Ordering::Relaxed)
    }

    /// What could not be delivered.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// What the backend did not take.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// All that was lost, for whatever reason.
    fn lost(&self) -> u64 {
        self.refused() + self.failed() + self.rejected()
    }

    /// What began and did not end.
    pub(crate) fn unfinished(&self) -> u64 {
        self.started.load(Ordering::Relaxed).saturating_sub(self.ended.load(Ordering::Relaxed))
    }

    /// Makes room for one item that ended, and says whether there was any.
    fn admit(&self, room: usize) -> bool {
        self.ended.fetch_add(1, Ordering::Relaxed);
        if self.waiting.fetch_add(1, Ordering::Relaxed) < room {
            return true;
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.tell(&"more wait than there is room for", false);
        false
    }

    /// Takes note of items that leave the room for an export.
    fn leave(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        self.handed_over.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Takes note of the end of an export, and of what the backend refused of it.
    fn export_ended(&self, count: u64, result: &OTelSdkResult, rejected: Option<&Rejected>) {
        match (result, rejected) {
            (Ok(()), None) => {
                self.exported.fetch_add(count, Ordering::Relaxed);
                self.recover();
            }
            (Ok(()), Some(Rejected { count: refused, why })) => {
                let lost = count.min(*refused);
                self.exported.fetch_add(count - lost, Ordering::Relaxed);
                self.rejected.fetch_add(lost, Ordering::Relaxed);
                if lost > 0 {
                    self.tell(&format_args!("the backend refused {refused} of an export, saying `{why}`"), false);
                } else {
                    self.advise(why);
                }
            }
            (Err(error), _) => {
                self.failed.fetch_add(count, Ordering::Relaxed);
                self.tell(error, true);
            }
        }
    }

    /// Passes on what a backend says of what it took, once in a while.
    fn advise(&self, why: &str) {
        let mut told = self.told();
        if told.advised.is_some_and(|last| last.elapsed() < SELDOM) {
            return;
        }
        told.advised = Some(Instant::now());
        drop(told);
        let (items, target) = (self.items, &self.target);
        tracing::warn!(exporter = %target, "the backend takes {items}, but says `{why}`");
    }

    /// Says once in a while that items are lost, whatever succeeds meanwhile.
    fn tell(&self, why: &dyn std::fmt::Display, is_failing: bool) {
        let mut told = self.told();
        if told.last.is_some_and(|last| last.elapsed() < SELDOM) {
            return;
        }
        *told = Told { last: Some(Instant::now()), is_failing, ..*told };
        drop(told);
        let (items, target, in_all) = (self.items, &self.target, self.lost());
        let why = one_line(&why.to_string());
        tracing::warn!(exporter = %target, in_all, "{items} are lost: {why}; messages are not affected");
    }

    /// Says that exports succeed again, where it was said that they do not.
    fn recover(&self) {
        if std::mem::take(&mut self.told().is_failing) {
            let (items, target, in_all) = (self.items, &self.target, self.lost());
            tracing::info!(exporter = %target, in_all, "{items} are exported again");
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A processor or an exporter, and the count of what goes through it.
#[derive(Debug)]
pub(crate) struct Counted<T> {
    inner: T,
    tally: Arc<Tally>,
    /// How many items may wait, in a processor.
    room: usize,
    /// What the backend refuses, in an exporter.
    rejections: Rejections,
}

impl<T> Counted<T> {
    /// An exporter, with what tells of the answers it gets.
    pub(crate) fn exporter(inner: T, tally: &Arc<Tally>, rejections: Rejections) -> Self {
        Self { inner, tally: tally.clone(), room: 0, rejections }
    }

    /// A processor with this much room. Its own queue must have as much.
    pub(crate) fn processor(inner: T, tally: &Arc<Tally>, room: usize) -> Self {
        Self { inner, tally: tally.clone(), room, rejections: Rejections::default() }
    }
}

impl<P: SpanProcessor> SpanProcessor for Counted<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.tally.started.fetch_add(1, Ordering::Relaxed);
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            self.tally.started.fetch_sub(1, Ordering::Relaxed);
        } else if self.tally.admit(self.room) {
            self.inner.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.tally.leave(count);
        let result = self.inner.export(batch).await;
        self.tally.export_ended(count as u64, &result, self.rejections.take().as_ref());
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<P: LogProcessor> LogProcessor for Counted<P> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if self.tally.admit(self.room) {
            self.inner.emit(record, scope);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        self.inner.event_enabled(level, target, name)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: LogExporter> LogExporter for Counted<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let count = batch.iter().count();
        self.tally.leave(count);
        let result = self.inner.export(batch).await;
        self.tally.export_ended(count as u64, &result, self.rejections.take().as_ref());
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        self.inner.event_enabled(level, target, name)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Counted<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.tally.ended.fetch_add(1, Ordering::Relaxed);
        let result = self.inner.export(metrics).await;
        self.tally.export_ended(1, &result, self.rejections.take().as_ref());
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::error::OTelSdkError;
    use tracing::Level;
    use tracing::field::Field;
    use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt};
    use tracing_subscriber::{Layer, Registry};

    use super::*;

    /// The levels and the texts of what is logged.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<(Level, String)>>>);

    impl<S: tracing::Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &tracing::Event<'_>, _context: LayerContext<'_, S>) {
            let mut text = String::new();
            event.record(&mut |field: &Field, value: &dyn std::fmt::Debug| {
                if field.name() == "message" {
                    text = format!("{value:?}");
                }
            });
            self.0.lock().unwrap().push((*event.metadata().level(), text));
        }
    }

    fn lines(act: impl FnOnce(&Tally)) -> Vec<(Level, String)> {
        let lines = Lines::default();
        let tally = Tally::new("spans", "http://collector".to_owned());
        tracing::subscriber::with_default(Registry::default().with(lines.clone()), || act(&tally));
        let logged = lines.0.lock().unwrap();
        logged.clone()
    }

    fn logged(act: impl FnOnce(&Tally)) -> Vec<Level> {
        lines(act).into_iter().map(|(level, _)| level).collect()
    }

    fn failed() -> OTelSdkResult {
        Err(OTelSdkError::InternalFailure("away".to_owned()))
    }

    #[test]
    fn an_outage_is_told_once_and_so_is_its_end() {
        let logged = logged(|tally| {
            (0..1000).for_each(|_| tally.export_ended(1, &failed(), None));
            (0..1000).for_each(|_| tally.export_ended(1, &Ok(()), None));
        });
        assert_eq!(logged, [Level::WARN, Level::INFO]);
    }

    /// What it says may be anything.
    #[test]
    fn the_words_of_a_backend_are_one_short_line() {
        let why = format!("no\r\n2026-01-01 ERROR all is lost{}", "!".repeat(10_000));
        let failed = Err(OTelSdkError::InternalFailure(why.clone()));
        let [failed] = lines(|tally| tally.export_ended(1, &failed, None)).try_into().unwrap();
        let rejected = Rejected::new(1, &why).unwrap();
        let [rejected] = lines(|tally| tally.export_ended(1, &Ok(()), Some(&rejected))).try_into().unwrap();
        for (_, text) in [failed, rejected] {
            assert!(text.starts_with("spans are lost") && text.ends_with("messages are not affected"), "{text}");
            assert!(!text.contains(['\r', '\n']) && text.len() < 300, "{text}");
        }
    }

    #[test]
    fn what_a_backend_refuses_of_an_export_is_lost_and_told_once() {
        let rejected = |count| Rejected { count, why: "too old".to_owned() };
        let refusing = logged(|tally| {
            (0..1000).for_each(|_| tally.export_ended(3, &Ok(()), Some(&rejected(2))));
            assert_eq!((tally.exported(), tally.failed(), tally.rejected()), (1000, 0, 2000));
            tally.export_ended(3, &Ok(()), Some(&rejected(u64::MAX)));
            assert_eq!((tally.exported(), tally.rejected()), (1000, 2003), "no more than there was");
        });
        assert_eq!(refusing, [Level::WARN]);
        let advising = logged(|tally| {
            (0..1000).for_each(|_| tally.export_ended(3, &Ok(()), Some(&rejected(0))));
            assert_eq!((tally.exported(), tally.rejected()), (3000, 0));
        });
        assert_eq!(advising, [Level::WARN]);
    }

    #[test]
    fn a_backend_that_is_too_slow_or_comes_and_goes_is_told_once() {
        let slow = logged(|tally| {
            (0..1000).for_each(|_| {
                assert!(tally.admit(1) && !tally.admit(1));
                tally.leave(1);
                tally.export_ended(1, &Ok(()), None);
            });
            assert_eq!((tally.exported(), tally.refused(), tally.dropped()), (1000, 1000, 1000));
        });
        assert_eq!(slow, [Level::WARN]);
        let flapping = logged(|tally| {
            (0..1000).for_each(|_| {
                tally.export_ended(1, &failed(), None);
                tally.export_ended(1, &Ok(()), None);
            });
        });
        assert_eq!(flapping, [Level::WARN, Level::INFO]);
    }
}
