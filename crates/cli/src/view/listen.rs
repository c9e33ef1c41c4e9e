//! The ports, and the signals that end the program.

use std::io::{self, ErrorKind};
use std::net::IpAddr;

use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Opens a port; the error says what to do.
pub(super) async fn open(address: IpAddr, port: u16, option: &str) -> Result<TcpListener, String> {
    TcpListener::bind((address, port)).await.map_err(|error| refused(address, port, option, &error))
}

fn refused(address: IpAddr, port: u16, option: &str, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => format!(
            "port {port} of {address} is taken: another program listens there, such as an OpenTelemetry Collector, Jaeger, Tempo, or \
             another `throughline view`. End that one, or choose another port with `{option}` and tell it to the services with \
             OTEL_EXPORTER_OTLP_ENDPOINT"
        ),
        ErrorKind::AddrNotAvailable => {
            format!("{address} is no address of this machine; choose another one with `--listen`")
        }
        ErrorKind::PermissionDenied => {
            format!("port {port} of {address} may not be opened ({error}); choose one above 1023 with `{option}`")
        }
        _ => format!("port {port} of {address} cannot be opened: {error}"),
    }
}

/// What ends the program: Ctrl-C, and where there is such a thing SIGTERM.
pub(super) struct End {
    #[cfg(unix)]
    terminate: Signal,
    #[cfg(unix)]
    interrupt: Signal,
}

impl End {
    /// From now on the program is not ended by the system.
    #[cfg(unix)]
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    #[cfg(not(unix))]
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for the next one.
    #[cfg(unix)]
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => (),
            _ = self.interrupt.recv() => (),
        }
    }

    #[cfg(not(unix))]
    pub(super) async fn wait(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
