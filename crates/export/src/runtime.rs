//! The thread on which telemetry is sent.

use std::sync::Arc;
use std::thread;

use opentelemetry::Context;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::error::{ExportError, ExportErrorKind};

/// A thread with a runtime of its own. So telemetry can be sent whatever runtime the program has, or none, also while that one is blocked.
///
/// The thread ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    handle: Handle,
    _alive: Arc<oneshot::Sender<()>>,
}

impl Runtime {
    pub(crate) fn start() -> Result<Self, ExportError> {
        let failed = |error| ExportError::caused_by(ExportErrorKind::Thread, error);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let (alive, ended) = oneshot::channel();
        let thread = thread::Builder::new().name("throughline-export".to_owned());
        let run = move || {
            // What the client says while it sends must not be sent in turn.
            let _suppressed = Context::enter_telemetry_suppressed_scope();
            // Only the end of the channel is waited for: nothing is ever sent.
            let _ = runtime.block_on(ended);
        };
        thread.spawn(run).map_err(failed)?;
        Ok(Self { handle, _alive: Arc::new(alive) })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}
