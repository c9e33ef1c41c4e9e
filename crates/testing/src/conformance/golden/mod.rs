//! The golden table: each row written once as data, and run through every door.

mod act;
mod compare;
mod hygiene;
mod metrics;
mod row;
pub mod rows;
mod scope;
mod span;
mod terms;
mod world;

use opentelemetry::Context;
use opentelemetry::trace::{SpanKind, TraceContextExt, Tracer, TracerProvider};

use self::act::carried;
use self::row::Need;
pub use self::row::Row;
pub use self::scope::one_scope;
use self::world::World;
use super::bench::Bench;
use super::wait::settled;
use super::{Capabilities, Door, DoorKind, Harness};

/// Runs a row through a door and compares everything it exported. A row that the broker or the door cannot show is left out.
pub async fn run<H: Harness, D: Door<H>>(row: &Row) {
    if let Some(need) = lacking::<H, D>(row) {
        eprintln!("{}: left out, this broker or door lacks {need:?}", row.id);
        return;
    }
    let bench = Bench::<H>::start().await;
    let tracer = bench.capture.tracer_provider().tracer("http");
    let ambient = row.is_ambient().then(|| {
        let span = tracer.span_builder("GET /").with_kind(SpanKind::Server).start(&tracer);
        Context::new().with_span(span)
    });
    let mut world = World::new(&bench, row, D::KIND, ambient);
    let engine = bench.engine_with(|builder| row.settings(builder));
    let received = act::act::<H, D>(&bench, &mut world, row, engine).await;
    drop(world.ambient.take());
    let spans = bench.capture.spans();
    let mut problems = Vec::new();
    match compare::match_spans(row, &world, &spans) {
        Ok(matched) => {
            problems.extend(compare::details(&world, &matched));
            problems.extend(carried(row, &world, &matched, &received));
            problems.extend(hygiene::events(&world, &matched, &bench.capture.logs()));
            problems.extend(hygiene::sampler(&world, &matched, &bench.capture.sampled()));
            problems.extend(settled(|| metrics::compare(row, &world, &matched, &bench.capture.metrics())).await.err());
        }
        Err(mismatch) => problems.extend(mismatch),
    }
    problems.extend(hygiene::deprecated(&bench.capture));
    if !problems.is_empty() {
        panic!(
            "{} does not hold:\n- {}\n\nthe spans were:\n{}",
            row.id,
            problems.join("\n- "),
            bench.capture.tree().snapshot()
        );
    }
    bench.stop().await;
}

/// Returns the ids of the rows that a broker and a door cannot show, so that a test can name them.
#[must_use]
pub fn left_out<H: Harness, D: Door<H>>() -> Vec<&'static str> {
    rows::ALL.iter().filter(|row| lacking::<H, D>(row).is_some()).map(|row| row.id).collect()
}

fn lacking<H: Harness, D: Door<H>>(row: &Row) -> Option<Need> {
    let capabilities: Capabilities = H::CAPABILITIES;
    row.needs().into_iter().find(|need| match need {
        Need::Ability(ability) => !D::can(*ability),
        Need::BodyRefused => !capabilities.refuses_bodies,
        Need::Door(kind) => D::KIND != *kind,
        Need::Groups => !capabilities.groups,
        Need::RequestReply => !capabilities.request_reply,
        Need::Settlement => !capabilities.settlement || !capabilities.redelivery,
        Need::UnheardRequests => !capabilities.unheard_requests,
        Need::Wildcards => !capabilities.wildcards,
    })
}

impl DoorKind {
    const fn settles(self) -> bool {
        matches!(self, Self::Framework)
    }
}
