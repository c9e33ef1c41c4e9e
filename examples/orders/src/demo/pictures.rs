//! The pictures of the story.

use std::io;

use opentelemetry::Value;
use throughline_cli::screen;
use throughline_waterfall::Trace;

use super::story::Played;

/// Draws the trace of each scene, and below that of the first one the batch in which billing invoiced it.
pub(super) fn draw(played: &Played, traces: &[Trace]) -> io::Result<()> {
    let screen = screen();
    let mut is_first = true;
    for (shows, order) in &played.scenes {
        screen.write(&format!("{shows}\n\n"));
        let Some(own) = traces.iter().find(|trace| is_of(trace, *order)) else { continue };
        screen.write(&own.draw(&screen));
        for batch in traces.iter().filter(|trace| is_first && trace.linked().contains(&own.id())) {
            screen.write(&batch.draw(&screen));
        }
        is_first = false;
    }
    screen.write(WHERE_TO_LOOK);
    screen.outcome()
}

/// What is said below the pictures.
const WHERE_TO_LOOK: &str = "\
The code of each concept is named in `examples/orders/README.md`. To order by yourself, start the services as it says there, and look with
`throughline view`; with Docker, `docker compose up --build` in `examples/orders` has Grafana at http://localhost:3000.

";

/// Whether a trace is that of the order; without one, whether it has a request and no order.
fn is_of(trace: &Trace, order: Option<u64>) -> bool {
    let has = |name: &str| trace.rows().iter().any(|row| row.span.name == name);
    match order {
        Some(order) => trace.rows().iter().flat_map(|row| &row.span.attributes).any(|attribute| {
            attribute.key.as_str() == "order"
                && matches!(attribute.value, Value::I64(id) if u64::try_from(id) == Ok(order))
        }),
        None => has("request shop.prices") && !has("send shop.orders"),
    }
}
