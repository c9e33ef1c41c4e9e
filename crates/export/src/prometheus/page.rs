//! The page: a small server on the thread of telemetry.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::proto::{Metric, MetricFamily};
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::cardinality::Cardinality;
use crate::error::{ExportError, ExportErrorKind};
use crate::runtime::Runtime;

/// How many programs may read the page at the same time; others wait.
const READERS: usize = 16;

/// How long the end of the page is waited for.
const END: Duration = Duration::from_secs(1);

/// The label of a series that adds up others, for which there was no room.
const OVERFLOW: &str = "otel_metric_overflow";

/// A page with what a registry has. It is there until this is dropped; then its port is free.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) content: Arc<Content>,
    pub(super) address: SocketAddr,
    server: AbortHandle,
    /// Hangs up when the listener is closed.
    closed: mpsc::Receiver<()>,
    _runtime: Runtime,
}

/// What the page shows.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) registry: Registry,
    /// Is told of metrics with too many series.
    pub(super) cardinality: OnceLock<Cardinality>,
}

/// The listener, and what hangs up after it.
struct Door {
    listener: tokio::net::TcpListener,
    _open: mpsc::Sender<()>,
}

impl Page {
    pub(super) fn start(listener: TcpListener) -> Result<Self, ExportError> {
        let failed = |error| ExportError::caused_by(ExportErrorKind::Thread, error);
        let address = listener.local_addr().map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let (runtime, content) = (Runtime::start()?, Arc::<Content>::default());
        let entered = runtime.handle().enter();
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        let (open, closed) = mpsc::channel();
        let door = Door { listener, _open: open };
        let server = runtime.handle().spawn(serve(door, content.clone())).abort_handle();
        drop(entered);
        Ok(Self { content, address, server, closed, _runtime: runtime })
    }
}

impl Content {
    /// Everything, after a look at which metrics have too many series.
    fn gather(&self) -> Vec<MetricFamily> {
        let families = self.registry.gather();
        if let Some(cardinality) = self.cardinality.get() {
            let is_overflow = |metric: &Metric| metric.get_label().iter().any(|label| label.name() == OVERFLOW);
            let over = families.iter().filter(|family| family.get_metric().iter().any(is_overflow));
            over.for_each(|family| cardinality.tell(family.name()));
        }
        families
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.server.abort();
        let _ = self.closed.recv_timeout(END);
    }
}

async fn serve(door: Door, content: Arc<Content>) {
    let readers = Arc::new(Semaphore::new(READERS));
    loop {
        let Ok(reader) = readers.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = door.listener.accept().await else {
            // Too many open files, for example: it may pass.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let content = content.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| std::future::ready(answer(&request, &content)));
            // A reader that goes away in the middle is its own business.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            drop(reader);
        });
    }
}

fn answer(request: &Request<Incoming>, content: &Content) -> Result<Response<Full<Bytes>>, Infallible> {
    let refused = |status| {
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        Ok(response)
    };
    if request.uri().path() != "/metrics" {
        return refused(StatusCode::NOT_FOUND);
    }
    if request.method() != Method::GET {
        return refused(StatusCode::METHOD_NOT_ALLOWED);
    }
    let (encoder, mut text) = (TextEncoder::new(), Vec::new());
    if encoder.encode(&content.gather(), &mut text).is_err() {
        return refused(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let response = Response::builder().header(CONTENT_TYPE, encoder.format_type()).body(Full::from(text));
    response.or_else(|_| refused(StatusCode::INTERNAL_SERVER_ERROR))
}
