//! The viewer without its terminal.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use throughline_waterfall::{Trace, in_order};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::hold::Hold;
use super::{GRACE, server};

/// A receiver of OTLP that keeps what services send, until its end.
///
/// It keeps 64 MiB of spans and log records. A service that sends more is told to try again, and drops what it has no room for.
///
/// # Examples
///
/// ```
/// use throughline_cli::Receiver;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let receiver = Receiver::start(([127, 0, 0, 1], 0).into(), ["tenant"]).await?;
/// println!("set OTEL_EXPORTER_OTLP_ENDPOINT to http://{}", receiver.address());
/// // Services run, and end.
/// let traces = receiver.finish().await;
/// assert!(traces.is_empty()); // nobody sent any
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    hold: Arc<Hold>,
    stop: watch::Sender<()>,
    server: JoinHandle<()>,
}

impl Receiver {
    /// Starts one that takes gRPC and HTTP on `address`; port 0 is a free one. Attributes with a key of `baggage` are shown as baggage.
    ///
    /// # Errors
    ///
    /// Fails when the address cannot be listened on, such as a port that is taken.
    pub async fn start<I>(address: SocketAddr, baggage: I) -> io::Result<Self>
    where
        I: IntoIterator<Item: Into<String>>,
    {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let hold = Arc::new(Hold::of_all(baggage.into_iter().map(Into::into).collect()));
        let (stop, stopped) = watch::channel(());
        let server = tokio::spawn(server::serve(listener, hold.clone(), stopped));
        Ok(Self { address, hold, stop, server })
    }

    /// Returns the address that services send to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it and returns the traces, in the order in which the viewer draws them. Requests that are being answered have a second.
    ///
    /// # Cancel safety
    ///
    /// What was received is lost when this is dropped before it is done.
    pub async fn finish(self) -> Vec<Trace> {
        drop(self.stop);
        // What hangs is left behind: what came is there.
        let _ = timeout(GRACE, self.server).await;
        in_order(self.hold.rest().traces)
    }
}
