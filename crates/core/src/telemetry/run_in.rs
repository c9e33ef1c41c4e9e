use std::future::{Future, poll_fn};
use std::pin::Pin;

use opentelemetry::Context;

/// Runs a future with a context current, if there is one to be made current. The future is pinned by the caller: handed over by value, a
/// large one would be copied.
pub(crate) async fn run_in<F: Future + Unpin>(context: Option<Context>, mut future: F) -> F::Output {
    poll_fn(|task| {
        let _current = context.clone().map(Context::attach);
        Pin::new(&mut future).poll(task)
    })
    .await
}
