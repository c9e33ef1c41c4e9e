use std::future::pending;

use tracing::warn;

/// Waits for Ctrl-C or, where there is one, SIGTERM. Signals before the first poll do not count.
pub(super) async fn termination() {
    if let Err(error) = listen().await {
        warn!(%error, "the process hears no signals: shut the app down in another way");
        pending::<()>().await;
    }
}

#[cfg(unix)]
async fn listen() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[cfg(not(unix))]
async fn listen() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
