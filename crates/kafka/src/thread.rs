use std::thread::Builder;

use throughline_core::BrokerError;
use throughline_core::broker::BrokerErrorKind;
use tokio::sync::oneshot;
use tracing::error;

use crate::error;

/// Runs what blocks on a thread of its own and waits for it. Dropped, the thread goes on and its result is thrown away.
///
/// Not a blocking task of the runtime: the end of a runtime waits for those, and a server that is silent would hold up the end of the
/// program.
pub(crate) async fn run<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> Result<T, BrokerError> + Send + 'static,
) -> Result<T, BrokerError> {
    let (answer, answered) = oneshot::channel();
    // Who asked may be gone.
    let run = move || drop(answer.send(work()));
    Builder::new().name(name.to_owned()).spawn(run).map_err(|failed| not_started(name).with_source(failed))?;
    answered.await.unwrap_or_else(|_| Err(panicked(name)))
}

/// Says that there is no thread for what blocks.
pub(crate) fn not_started(name: &str) -> BrokerError {
    let message =
        format!("no thread `{name}` could be started: see whether the process has reached a limit of the system");
    BrokerError::new(BrokerErrorKind::Other, error::OTHER, message)
}

/// Says that a thread has panicked, and logs it: nobody else may hear of it.
pub(crate) fn panicked(name: &str) -> BrokerError {
    error!(thread = name, "a thread of the Kafka adapter panicked; what waits for it fails");
    let message = format!("the thread `{name}` panicked: see the message of the panic, which is on standard error");
    BrokerError::new(BrokerErrorKind::Ended, error::PANIC, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_panics_on_a_thread_is_an_error() {
        let work = || -> Result<(), BrokerError> { panic!("on purpose") };
        let failed = run("test", work).await.unwrap_err();
        assert_eq!((failed.kind(), failed.error_type()), (BrokerErrorKind::Ended, "panic"));
        assert_eq!(run("test", || Ok(7)).await.unwrap(), 7);
    }
}
