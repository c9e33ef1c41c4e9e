//! The three services of the quickstart, each with a set-up, a log and a thread of its own, as if it were a process.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use opentelemetry::trace::TracerProvider as _;
use quickstart::handlers::{Desk, End, Warehouses};
use quickstart::services::{billing, shop, stock};
use quickstart::{memory, story};
use throughline_core::telemetry::Instrumentation;
use throughline_core::{App, Publisher, serve};
use throughline_export::{ShutdownReport, Telemetry};
use throughline_memory::Memory;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::api::PATIENCE;

/// What the services are called.
pub(crate) const SERVICES: [&str; 3] = ["shop", "stock", "billing"];

/// Returns a name for a run: a backend that is not of one test alone has other services, too.
pub(crate) fn unique() -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock");
    format!("{:x}{:x}", std::process::id(), now.as_micros())
}

/// Returns what a service is called in a run.
pub(crate) fn full(service: &str, run: &str) -> String {
    format!("{service}-{run}")
}

/// The services while they run.
pub(crate) struct Play {
    publisher: Publisher,
    ended: UnboundedReceiver<End>,
    services: [Service; 3],
}

/// A service on its thread.
struct Service {
    name: &'static str,
    telemetry: Arc<Telemetry>,
    stop: oneshot::Sender<()>,
    end: JoinHandle<ShutdownReport>,
}

impl Play {
    /// Starts the services; `set_up` makes the telemetry of the one with this name, in which `run` is a part.
    pub(crate) async fn start(run: &str, set_up: impl Fn(String) -> Telemetry) -> Self {
        let broker = Memory::new();
        let from = memory::subscriptions();
        let (ends, ended) = unbounded_channel();
        let [of_shop, of_stock, of_billing] = SERVICES.map(|name| set_up(full(name, run)));
        let publisher = Publisher::new(&broker).telemetry(engine(&of_shop));
        let warehouses = Warehouses::new(of_stock.tracer_provider().tracer("quickstart"));
        let services = [
            Service::start(&broker, shop(from.invoiced, from.dead, Desk { ends }), "shop", of_shop).await,
            Service::start(&broker, billing(from.reserved), "billing", of_billing).await,
            Service::start(&broker, stock(from.placed, warehouses), "stock", of_stock).await,
        ];
        Self { publisher, ended, services }
    }

    /// Places the three orders of the quickstart, and returns when each has come to its end.
    pub(crate) async fn orders(&mut self) {
        let orders = story::orders();
        for order in &orders {
            story::place(&self.publisher, order).await.expect("an order is placed");
        }
        let mut open: BTreeSet<u32> = orders.iter().map(|order| order.id).collect();
        while !open.is_empty() {
            let end = timeout(PATIENCE, self.ended.recv()).await.expect("an order ends in time");
            open.remove(&end.expect("the shop serves").order);
        }
    }

    /// Sends what is there now, and says whether each service could.
    pub(crate) async fn flush(&self) -> bool {
        let mut sent = true;
        for service in &self.services {
            sent &= service.telemetry.flush().await.is_ok();
        }
        sent
    }

    /// Stops the services, those that publish first, and returns what each said of its telemetry.
    pub(crate) async fn stop(self) -> [(&'static str, ShutdownReport); 3] {
        let mut services = self.services;
        services.reverse();
        services.map(|service| {
            let _ = service.stop.send(());
            (service.name, service.end.join().expect("a service ends in order"))
        })
    }
}

impl Service {
    /// Serves on a thread, whose log leads to the telemetry.
    async fn start(broker: &Memory, app: App, name: &'static str, telemetry: Telemetry) -> Self {
        let (app, broker) = (app.telemetry(engine(&telemetry)), broker.clone());
        let telemetry = Arc::new(telemetry);
        let held = telemetry.clone();
        let (stop, stopped) = oneshot::channel();
        let (tell, started) = oneshot::channel();
        let end = thread::spawn(move || {
            let log = tracing_subscriber::registry().with(telemetry.layer().with_filter(LevelFilter::INFO));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            tracing::subscriber::with_default(log, || {
                runtime.block_on(async {
                    let running = serve(broker, app).start().await.expect("a start");
                    tell.send(()).expect("the test waits");
                    let _ = stopped.await;
                    running.shutdown().await.expect("an orderly end");
                    telemetry.shutdown().await.expect("an orderly end of telemetry")
                })
            })
        });
        started.await.expect("the service starts");
        Self { name, telemetry: held, stop, end }
    }
}

fn engine(telemetry: &Telemetry) -> Instrumentation {
    Instrumentation::builder()
        .tracer_provider(telemetry.tracer_provider())
        .meter_provider(&telemetry.meter_provider())
        .error_descriptions(true)
        .build()
}
