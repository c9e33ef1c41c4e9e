use std::future::{Future, poll_fn};
use std::pin::pin;

use opentelemetry::Context;

/// Runs a future with a context current, if there is one to be made current.
pub(crate) async fn run_in<F: Future>(context: Option<Context>, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|task| {
        let _current = context.clone().map(Context::attach);
        future.as_mut().poll(task)
    })
    .await
}
