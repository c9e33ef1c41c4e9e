//! `throughline view`: receives OTLP and draws it.
//!
//! `server` takes requests on the ports of `listen`, as `grpc` and as `http`; `signal` hands what they bring to `read`, which makes of it
//! what is drawn. `hold` keeps that until a trace is quiet; a thread, `drawer`, takes it out and writes it, as `filter` selects. `receiver` is
//! the same for a program that draws by itself.

mod answer;
mod drawer;
mod filter;
mod grpc;
mod held;
mod hold;
mod http;
mod json;
mod keyboard;
mod listen;
mod measurements;
mod output;
mod read;
mod receiver;
mod remembered;
mod server;
mod signal;
mod tally;

use std::error::Error;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use self::drawer::{Drawer, Order};
use self::hold::Hold;
use self::output::Output;
pub use self::output::screen;
pub use self::receiver::Receiver;
use crate::arguments::View;

/// How long the requests that are being answered have, once the program ends.
const GRACE: Duration = Duration::from_secs(1);

/// Draws until the program is told to end.
pub(crate) fn run(options: &View) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(view(options))
}

async fn view(options: &View) -> Result<(), Box<dyn Error>> {
    let listeners = [
        listen::open(options.listen, options.grpc_port, "--grpc-port").await?,
        listen::open(options.listen, options.http_port, "--http-port").await?,
    ];
    let mut end = listen::End::new()?;
    let hold = Arc::new(Hold::new(options));
    let (orders, ordered) = channel();
    let (drawn, mut all_drawn) = oneshot::channel();
    let drawer = Drawer::new(hold.clone(), Output::new(options), options);
    std::thread::Builder::new().name("drawer".to_owned()).spawn(move || {
        // Nobody asks any more where the program has ended without waiting.
        let _ = drawn.send(drawer.run(&ordered));
    })?;
    keyboard::listen(orders.clone());
    say_where(&listeners)?;
    let (stop, stopped) = watch::channel(());
    let servers = listeners.map(|listener| tokio::spawn(server::serve(listener, hold.clone(), stopped.clone())));
    tokio::select! {
        () = end.wait() => (),
        // The output is gone: nothing can be drawn.
        outcome = &mut all_drawn => return Ok(outcome??),
    }
    drop((stop, stopped));
    let _ = tokio::time::timeout(GRACE, async {
        for server in servers {
            let _ = server.await;
        }
    })
    .await;
    finish(&orders, all_drawn, &mut end).await
}

/// Has everything drawn that is left. A second signal ends the wait for a terminal that takes nothing.
async fn finish(
    orders: &Sender<Order>,
    all_drawn: oneshot::Receiver<std::io::Result<()>>,
    end: &mut listen::End,
) -> Result<(), Box<dyn Error>> {
    // The drawer is there until it has answered.
    let _ = orders.send(Order::End);
    tokio::select! {
        outcome = all_drawn => Ok(outcome??),
        () = end.wait() => Err("ended before everything was drawn".into()),
    }
}

fn say_where([grpc, http]: &[TcpListener; 2]) -> std::io::Result<()> {
    let (grpc, http) = (grpc.local_addr()?, http.local_addr()?);
    eprintln!("listening for OTLP: gRPC on http://{grpc}, HTTP on http://{http}\n");
    Ok(())
}
