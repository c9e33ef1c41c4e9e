//! Holds what services sent until it is drawn.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::trace::TraceId;
use throughline_waterfall::{Series, Span, Trace};

use super::filter::Filter;
use super::held::{self, Held, Loose, Said};
use super::measurements::{Measurements, Point};
use super::remembered::Remembered;
use super::tally::{Losses, Tally};
use crate::arguments::View;

/// How much may wait to be drawn, in bytes as they are estimated.
const CAPACITY: usize = 64 * 1024 * 1024;

/// How much of that one request may bring. More would never fit.
const PORTION: usize = CAPACITY / 2;

/// How many log records of no trace wait at most.
const LOOSE: usize = 10_000;

/// What waits to be drawn, shared by who receives and who draws.
#[derive(Debug)]
pub(super) struct Hold {
    state: Mutex<State>,
    quiet: Duration,
    wait: Duration,
    filter: Filter,
    /// Attributes that are baggage.
    pub(super) baggage: Vec<String>,
}

#[derive(Debug, Default)]
struct State {
    traces: HashMap<TraceId, Held>,
    loose: Vec<Loose>,
    remembered: Remembered,
    measurements: Measurements,
    weight: usize,
    /// Something did not fit: what is there is drawn soon, quiet or not.
    full: bool,
    received: u64,
    tally: Tally,
}

/// What is to be drawn now.
#[derive(Debug, Default)]
pub(super) struct Ready {
    pub(super) traces: Vec<Trace>,
    pub(super) loose: Vec<Loose>,
}

/// Why nothing of a request was taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    /// There is no room for the moment.
    Full,
    /// It would never fit.
    TooLarge,
}

impl Hold {
    pub(super) fn new(options: &View) -> Self {
        Self {
            state: Mutex::default(),
            quiet: options.quiet,
            wait: options.wait.max(options.quiet),
            filter: Filter::new(options),
            baggage: options.baggage.clone(),
        }
    }

    /// One that is asked for all that is left alone. Attributes with a key of `baggage` are baggage.
    pub(super) fn of_all(baggage: Vec<String>) -> Self {
        let (quiet, wait, filter) = (Duration::ZERO, Duration::ZERO, Filter::default());
        Self { state: Mutex::default(), quiet, wait, filter, baggage }
    }

    /// Takes spans, all or none.
    pub(super) fn take_spans(&self, spans: Vec<Span>, lost: Losses) -> Result<(), Refusal> {
        let mut state = self.state();
        state.make_room(spans.iter().map(held::weight_of_span).sum())?;
        for mut span in spans {
            state.received += 1;
            span.order = state.received;
            state.held(span.trace_id).add_span(span);
        }
        state.tally.losses.add(lost);
        Ok(())
    }

    /// Takes log records: those of spans, all or none, and those that stand alone. Returns how many of these there was no room for.
    pub(super) fn take_records(&self, said: Vec<Said>, loose: Vec<Loose>, mut lost: Losses) -> Result<u64, Refusal> {
        let mut state = self.state();
        state.make_room(said.iter().map(held::weight_of_record).sum())?;
        state.tally.records += (said.len() + loose.len()) as u64;
        for said in said {
            state.held(said.trace).add_record(said);
        }
        lost.records += state.add_loose(loose);
        state.tally.losses.add(lost);
        Ok(lost.records)
    }

    /// Takes measurements. There always is room for those of a series that is known; returns how many are lost.
    pub(super) fn take_points(&self, points: Vec<Point>, mut lost: Losses) -> u64 {
        let mut state = self.state();
        for point in points {
            lost.points += u64::from(!state.measurements.take(point));
        }
        state.tally.losses.add(lost);
        lost.points
    }

    /// Counts what is lost.
    pub(super) fn lost(&self, lost: Losses) {
        self.state().tally.losses.add(lost);
    }

    /// Takes out what is to be drawn: traces that are quiet or for which there is no more room, and those records that have no place in them.
    pub(super) fn ready(&self, now: Instant) -> Ready {
        let mut state = self.state();
        let all = std::mem::take(&mut state.full);
        self.take(state, |held, seen| all || held.is_ready(now, self.quiet, self.wait, seen))
    }

    /// Takes out all that is left.
    pub(super) fn rest(&self) -> Ready {
        self.take(self.state(), |_, _| true)
    }

    /// All that was measured, by service.
    pub(super) fn measured(&self) -> BTreeMap<Arc<str>, Vec<Series>> {
        self.state().measurements.series()
    }

    pub(super) fn tally(&self) -> Tally {
        self.state().tally
    }

    /// Takes out the traces that `ready` selects, which is told whether a trace was there before.
    fn take(&self, mut state: MutexGuard<'_, State>, mut ready: impl FnMut(&mut Held, bool) -> bool) -> Ready {
        let State { traces, remembered, .. } = &mut *state;
        let selected = traces.extract_if(|id, held| ready(held, remembered.was_shown(*id).is_some()));
        let taken: Vec<(TraceId, Held)> = selected.collect();
        let taken: Vec<(TraceId, Held, Option<bool>)> =
            taken.into_iter().map(|(id, held)| (id, held, state.remembered.was_shown(id))).collect();
        state.weight = state.weight.saturating_sub(taken.iter().map(|(_, held, _)| held.weight).sum());
        let loose = std::mem::take(&mut state.loose);
        // What follows takes longer; who receives does not wait for it.
        drop(state);
        let loose = loose.into_iter().filter(|record| self.filter.shows_record(record)).collect();
        let mut output = Ready { traces: Vec::new(), loose };
        let mut done = Vec::new();
        for (id, held, before) in taken {
            let (trace, others) = held.picture(before.is_some());
            let shown = before == Some(true) || trace.as_ref().is_some_and(|trace| self.filter.shows(trace));
            let alone = trace.is_none() && before.is_none();
            let others = others.into_iter().filter(|record| shown || (alone && self.filter.shows_record(record)));
            output.loose.extend(others);
            if let Some(trace) = trace {
                done.push((id, shown, trace.rows().len() as u64));
                output.traces.extend(Some(trace).filter(|_| shown));
            }
        }
        self.note(&done);
        output
    }

    fn note(&self, done: &[(TraceId, bool, u64)]) {
        let mut state = self.state();
        for &(id, shown, spans) in done {
            state.remembered.note(id, shown);
            if shown {
                state.tally.pictures += 1;
                state.tally.spans += spans;
            } else {
                state.tally.left_out += 1;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes sure that something of this weight fits, and counts it as there.
    fn make_room(&mut self, weight: usize) -> Result<(), Refusal> {
        if weight > PORTION {
            return Err(Refusal::TooLarge);
        }
        if self.weight + weight > CAPACITY {
            self.full = true;
            return Err(Refusal::Full);
        }
        self.weight += weight;
        Ok(())
    }

    fn held(&mut self, id: TraceId) -> &mut Held {
        self.traces.entry(id).or_insert_with(Held::new)
    }

    /// Returns how many there was no room for.
    fn add_loose(&mut self, loose: Vec<Loose>) -> u64 {
        let room = LOOSE.saturating_sub(self.loose.len());
        let left = loose.len().saturating_sub(room) as u64;
        self.loose.extend(loose.into_iter().take(room));
        left
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use clap::Parser;
    use opentelemetry::trace::{SpanId, SpanKind, TraceId};
    use throughline_waterfall::{Remark, Span};

    use super::super::held::{Loose, Said};
    use super::{Hold, PORTION, Refusal};
    use crate::arguments::{Arguments, Command};
    use crate::view::tally::Losses;

    fn hold(options: &[&str]) -> Hold {
        let arguments = ["throughline", "view"].iter().chain(options);
        let Command::View(options) = Arguments::try_parse_from(arguments).unwrap().command;
        Hold::new(&options)
    }

    fn span(trace: u64, id: u64, parent: u64, kind: SpanKind) -> Span {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let mut span =
            Span::new(TraceId::from(u128::from(trace)), SpanId::from(id), "shop", "work", at(id), at(id + 100));
        (span.parent, span.kind) = (SpanId::from(parent), kind);
        span
    }

    fn said(trace: u64, span: u64, text: &str) -> Said {
        let remark =
            Remark { span: SpanId::from(span), time: SystemTime::UNIX_EPOCH, text: text.to_owned(), exception: false };
        Said { trace: TraceId::from(u128::from(trace)), service: "shop".into(), severe: false, remark }
    }

    fn take(hold: &Hold, spans: Vec<Span>) {
        hold.take_spans(spans, Losses::default()).unwrap();
    }

    /// How many rows each trace has that is drawn after this time.
    fn drawn(hold: &Hold, after: Duration) -> Vec<usize> {
        hold.ready(Instant::now() + after).traces.iter().map(|trace| trace.rows().len()).collect()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_trace_is_drawn_when_it_is_quiet() {
        let hold = hold(&[]);
        take(&hold, vec![span(1, 1, 0, SpanKind::Internal)]);
        take(&hold, vec![span(1, 2, 1, SpanKind::Internal)]);
        assert_eq!(drawn(&hold, SECOND / 2), [0; 0]);
        assert_eq!(drawn(&hold, SECOND), [2]);
        assert_eq!(drawn(&hold, SECOND), [0; 0]);
    }

    #[test]
    fn what_lacks_a_parent_or_a_consumer_waits_longer() {
        for lacking in [span(1, 2, 1, SpanKind::Internal), span(1, 2, 0, SpanKind::Producer)] {
            let hold = hold(&[]);
            take(&hold, vec![lacking]);
            assert_eq!(drawn(&hold, 3 * SECOND), [0; 0]);
            assert_eq!(drawn(&hold, 6 * SECOND), [1]);
        }
        let hold = hold(&[]);
        take(&hold, vec![span(1, 3, 2, SpanKind::Consumer), span(1, 2, 0, SpanKind::Producer)]);
        assert_eq!(drawn(&hold, SECOND), [2]);
    }

    #[test]
    fn what_comes_later_is_a_continuation_and_does_not_wait_for_a_parent() {
        let hold = hold(&[]);
        take(&hold, vec![span(1, 1, 0, SpanKind::Internal)]);
        assert!(!hold.ready(Instant::now() + SECOND).traces[0].is_continued());
        take(&hold, vec![span(1, 2, 1, SpanKind::Internal)]);
        assert!(hold.ready(Instant::now() + SECOND).traces[0].is_continued());
    }

    #[test]
    fn a_span_that_is_sent_twice_is_drawn_once() {
        let hold = hold(&[]);
        for _ in 0..2 {
            take(&hold, vec![span(1, 1, 0, SpanKind::Internal), span(1, 2, 1, SpanKind::Internal)]);
        }
        assert_eq!(drawn(&hold, SECOND), [2]);
    }

    #[test]
    fn records_stand_below_their_span_and_alone_where_it_is_missing() {
        let hold = hold(&[]);
        hold.take_records(
            vec![said(1, 1, "mine"), said(1, 9, "nobody's"), said(2, 1, "early")],
            vec![],
            Losses::default(),
        )
        .unwrap();
        take(&hold, vec![span(1, 1, 0, SpanKind::Internal)]);
        let ready = hold.ready(Instant::now() + SECOND);
        assert_eq!(ready.traces[0].rows()[0].remarks, ["mine"]);
        assert_eq!(ready.loose.iter().map(|record| record.text.as_str()).collect::<Vec<_>>(), ["nobody's"]);
        // The span of this one may still come.
        let ready = hold.ready(Instant::now() + 6 * SECOND);
        assert_eq!(ready.loose.iter().map(|record| record.text.as_str()).collect::<Vec<_>>(), ["early"]);
    }

    #[test]
    fn the_options_leave_out_whole_traces() {
        for options in [&["--service", "stock"][..], &["--errors"], &["--slower-than", "101ms"]] {
            let hold = hold(options);
            take(&hold, vec![span(1, 1, 0, SpanKind::Internal)]);
            assert_eq!(drawn(&hold, SECOND), [0; 0], "{options:?}");
            assert_eq!(hold.tally().left_out, 1);
        }
        for options in [&["--service", "stock", "--service", "shop"][..], &["--slower-than", "100ms"]] {
            let hold = hold(options);
            take(&hold, vec![span(1, 1, 0, SpanKind::Internal)]);
            assert_eq!(drawn(&hold, SECOND), [1], "{options:?}");
        }
    }

    #[test]
    fn a_trace_that_is_shown_is_shown_to_its_end() {
        let hold = hold(&["--slower-than", "100ms"]);
        take(&hold, vec![span(1, 1, 0, SpanKind::Internal)]);
        assert_eq!(drawn(&hold, SECOND), [1]);
        let mut late = span(1, 2, 1, SpanKind::Internal);
        late.end = late.start;
        take(&hold, vec![late]);
        assert_eq!(drawn(&hold, SECOND), [1]);
    }

    #[test]
    fn a_record_alone_is_left_out_by_the_options_too() {
        let record =
            |service: &str, severe| Loose { service: service.into(), severe, text: String::new(), trace: None };
        for (options, shown) in
            [(&[][..], 3), (&["--errors"], 1), (&["--service", "stock"], 1), (&["--slower-than", "1s"], 0)]
        {
            let hold = hold(options);
            let records = vec![record("shop", true), record("shop", false), record("stock", false)];
            hold.take_records(vec![], records, Losses::default()).unwrap();
            assert_eq!(hold.ready(Instant::now()).loose.len(), shown, "{options:?}");
        }
    }

    #[test]
    fn where_there_is_no_room_the_sender_waits_until_all_was_drawn() {
        let hold = hold(&["--quiet", "1m", "--wait", "1m"]);
        let big = |trace| {
            let mut span = span(trace, 1, 0, SpanKind::Internal);
            span.name = "x".repeat(PORTION / 2).into();
            vec![span]
        };
        let sent: Vec<_> = (1..=9).map(|trace| hold.take_spans(big(trace), Losses::default())).collect();
        assert_eq!(sent[..3], [Ok(()), Ok(()), Ok(())]);
        assert_eq!(sent[8], Err(Refusal::Full));
        // Nothing is quiet yet.
        assert_eq!(drawn(&hold, Duration::ZERO).len(), sent.iter().filter(|sent| sent.is_ok()).count());
        assert_eq!(hold.take_spans(big(9), Losses::default()), Ok(()));
        assert_eq!(hold.rest().traces.len(), 1);
        assert_eq!(hold.state().weight, 0);
    }

    #[test]
    fn what_would_never_fit_is_refused_for_good() {
        let hold = hold(&[]);
        let mut span = span(1, 1, 0, SpanKind::Internal);
        span.name = "x".repeat(PORTION + 1).into();
        assert_eq!(hold.take_spans(vec![span], Losses::default()), Err(Refusal::TooLarge));
        assert!(hold.rest().traces.is_empty());
    }

    #[test]
    fn records_of_no_trace_are_bounded() {
        let hold = hold(&[]);
        let record = Loose { service: "shop".into(), severe: false, text: String::new(), trace: None };
        hold.take_records(vec![], vec![record; super::LOOSE + 3], Losses::default()).unwrap();
        assert_eq!(hold.rest().loose.len(), super::LOOSE);
        assert_eq!(hold.tally().losses.records, 3);
    }
}
