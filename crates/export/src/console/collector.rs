//! Holds finished spans until their trace is quiet, then has it drawn.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry::trace::{SpanContext, SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;
use throughline_waterfall::{Remark, Screen, Series, Span, Trace, in_order, table};

use super::finished::span;
use crate::error::{ExportError, ExportErrorKind};
use crate::report::ShutdownReport;

/// How many finished spans wait at most, and how many remarks per trace; more are dropped and counted.
const CAPACITY: usize = 10_000;

/// How many drawn traces are remembered, to mark a later picture of one as continued.
const REMEMBERED: usize = 10_000;

#[derive(Debug)]
pub(super) struct Collector {
    pub(super) screen: Screen,
    state: Mutex<State>,
    quiet: Duration,
    /// Whether the thread that looks for quiet traces was started.
    watched: AtomicBool,
    /// Hangs up on that thread when the collector goes away.
    alive: Mutex<Option<Sender<()>>>,
}

#[derive(Debug, Default)]
struct State {
    traces: HashMap<TraceId, Held>,
    drawn: HashSet<TraceId>,
    metrics: BTreeMap<Arc<str>, Vec<Series>>,
    waiting: usize,
    started: u64,
    ended: u64,
    report: ShutdownReport,
}

/// What is known of a trace that is not drawn yet.
#[derive(Debug)]
struct Held {
    open: HashMap<SpanId, Opened>,
    finished: Vec<Span>,
    remarks: Vec<Remark>,
    changed: Instant,
}

/// What is only known when a span starts.
#[derive(Debug, Default)]
struct Opened {
    order: u64,
    baggage: Vec<(String, String)>,
}

impl Collector {
    pub(super) fn new(screen: Screen, quiet: Duration) -> Arc<Self> {
        let (watched, alive) = (AtomicBool::new(false), Mutex::new(None));
        Arc::new(Self { screen, state: Mutex::default(), quiet, watched, alive })
    }

    /// Takes note of a span that starts, with the baggage of its parent context.
    pub(super) fn started(self: &Arc<Self>, span: &SpanContext, baggage: Vec<(String, String)>) {
        let mut state = self.state();
        state.started += 1;
        let order = state.started;
        state.held(span.trace_id()).open.insert(span.span_id(), Opened { order, baggage });
        drop(state);
        self.watch();
    }

    /// Takes a finished span.
    pub(super) fn ended(&self, service: Arc<str>, data: SpanData) {
        let mut state = self.state();
        state.ended += 1;
        let (id, sampled) = (data.span_context.span_id(), data.span_context.is_sampled());
        let full = state.waiting >= CAPACITY;
        let held = state.held(data.span_context.trace_id());
        let Opened { order, baggage } = held.open.remove(&id).unwrap_or_default();
        if !sampled {
            return;
        }
        if full {
            state.report.dropped_spans += 1;
            return;
        }
        held.finished.push(span(data, service, order, baggage));
        state.waiting += 1;
    }

    /// Takes a log record of a span; gives it back if that span is not held.
    pub(super) fn remarked(&self, trace: TraceId, remark: Remark) -> Result<(), Remark> {
        match self.state().traces.get_mut(&trace) {
            Some(held) if held.has(remark.span) && held.remarks.len() < CAPACITY => {
                held.remarks.push(remark);
                Ok(())
            }
            _ => Err(remark),
        }
    }

    /// Takes all measurements of a service, in place of earlier ones.
    pub(super) fn measured(&self, service: Arc<str>, series: Vec<Series>) {
        self.state().metrics.insert(service, series);
    }

    /// Draws all traces that have finished spans.
    pub(super) fn draw_all(&self) {
        self.draw(|_| true);
    }

    /// Draws the measurements of all services, if there are new ones, and says whether everything could be written.
    pub(super) fn draw_metrics(&self) -> Result<(), ExportError> {
        let metrics = std::mem::take(&mut self.state().metrics);
        self.screen.write(&table(&metrics, &self.screen));
        self.screen.outcome().map_err(|error| ExportError::caused_by(ExportErrorKind::Write, error))
    }

    /// Lets the thread that looks for quiet traces end, and says what became of the spans.
    pub(super) fn close(&self) -> ShutdownReport {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).take();
        let state = self.state();
        ShutdownReport { unfinished_spans: state.started.saturating_sub(state.ended), ..state.report }
    }

    fn draw_quiet(&self) {
        self.draw(|held| held.open.is_empty() && held.changed.elapsed() >= self.quiet);
    }

    /// Takes out what `ready` selects and draws it. The state is not locked meanwhile: a slow terminal delays no span.
    fn draw(&self, ready: impl Fn(&Held) -> bool) {
        let taken = self.state().take(ready);
        if taken.is_empty() {
            return;
        }
        let pictures: String = in_order(taken).iter().map(|trace| trace.draw(&self.screen)).collect();
        self.screen.write(&pictures);
    }

    /// Starts the thread that draws quiet traces, once there is something to draw.
    fn watch(self: &Arc<Self>) {
        if self.watched.swap(true, Ordering::Relaxed) {
            return;
        }
        let (alive, hung_up) = channel();
        *self.alive.lock().unwrap_or_else(PoisonError::into_inner) = Some(alive);
        let (collector, pause) = (Arc::downgrade(self), self.quiet / 4);
        // Without the thread, traces are drawn at the next flush.
        let _ = thread::Builder::new()
            .name("throughline-console".to_owned())
            .spawn(move || watch(&collector, &hung_up, pause));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn has(&self, span: SpanId) -> bool {
        let finished = || self.finished.iter().any(|finished| finished.id == span);
        self.open.contains_key(&span) || finished()
    }
}

fn watch(collector: &Weak<Collector>, hung_up: &Receiver<()>, pause: Duration) {
    let pause = pause.max(Duration::from_millis(10));
    while let Err(RecvTimeoutError::Timeout) = hung_up.recv_timeout(pause) {
        let Some(collector) = collector.upgrade() else {
            return;
        };
        collector.draw_quiet();
    }
}

impl State {
    /// What is held of a trace; it counts as changed.
    fn held(&mut self, id: TraceId) -> &mut Held {
        let now = Instant::now();
        let held = self.traces.entry(id).or_insert_with(|| Held {
            open: HashMap::new(),
            finished: Vec::new(),
            remarks: Vec::new(),
            changed: now,
        });
        held.changed = now;
        held
    }

    /// Takes what is finished out of the selected traces; spans that are still open stay, with their remarks.
    fn take(&mut self, ready: impl Fn(&Held) -> bool) -> Vec<Trace> {
        let mut taken = Vec::new();
        for (id, held) in self.traces.iter_mut().filter(|(_, held)| ready(held)) {
            let finished = std::mem::take(&mut held.finished);
            self.waiting = self.waiting.saturating_sub(finished.len());
            self.report.exported_spans += finished.len() as u64;
            taken.extend(Trace::new(finished, &held.remarks, self.drawn.contains(id)));
            held.remarks.retain(|remark| held.open.contains_key(&remark.span));
        }
        self.traces.retain(|_, held| !held.open.is_empty() || !held.finished.is_empty());
        if self.drawn.len() + taken.len() > REMEMBERED {
            self.drawn.clear();
        }
        self.drawn.extend(taken.iter().map(Trace::id));
        taken
    }
}
