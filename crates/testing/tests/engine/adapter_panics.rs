//! Adapters that panic where the handler's catch does not reach: nothing ends in silence, and nothing comes again without delay.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use throughline_core::broker::{BoxFuture, Received, Settle};
use throughline_core::{App, BrokerError, Delivery, Failure, Handler, ServeErrorKind, Settlement, serve};
use throughline_memory::{Channel, Memory};
use tokio::time::timeout;

use crate::altered::{Altered, settled_by};

/// Where the adapter panics.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Panics {
    AfterAFailure,
    BeforeTheHandler,
    Receiving,
    Settling,
}

struct PanickingSettle {
    inner: Arc<dyn Settle>,
    panics: Panics,
}

impl Settle for PanickingSettle {
    fn settle<'a>(
        &'a self,
        message: &'a Received,
        settlement: &'a Settlement,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            assert!(self.panics != Panics::Settling, "the adapter panics on purpose");
            self.inner.settle(message, settlement).await
        })
    }

    fn is_withdrawn(&self, _message: &Received) -> bool {
        assert!(self.panics != Panics::BeforeTheHandler, "the adapter panics on purpose");
        false
    }

    fn failed(&self, _message: &Received, _failure: &Failure, _next: &Settlement) {
        assert!(self.panics != Panics::AfterAFailure, "the adapter panics on purpose");
    }

    fn abandon(&self, message: &Received) {
        self.inner.abandon(message);
    }
}

/// Serves until the app ends by itself; `None` where it goes on.
async fn served(panics: Panics, concurrency: usize) -> (Option<ServeErrorKind>, usize) {
    let (memory, handled) = (Memory::new(), Arc::new(AtomicUsize::new(0)));
    let broker = Altered::new(&memory, move |received| {
        assert!(panics != Panics::Receiving, "the adapter panics on purpose");
        settled_by(received, |inner| PanickingSettle { inner, panics })
    });
    let counter = Arc::clone(&handled);
    let count = move |_delivery: Delivery| {
        counter.fetch_add(1, Ordering::SeqCst);
        async {}
    };
    let app = App::new().subscribe(Channel::new("orders"), count.concurrency(concurrency));
    let running = serve(broker, app).start().await.unwrap();
    memory.publisher().publish_batch("orders", ["1", "2", "3"]).await.unwrap();
    let ended = timeout(Duration::from_secs(60), running.run_until(pending())).await.ok();
    let kind = ended.map(|ended| ended.unwrap_err().kind());
    (kind, handled.load(Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_panics_around_a_handler_ends_the_service_with_an_error() {
    for panics in [Panics::BeforeTheHandler, Panics::Receiving] {
        for concurrency in [1, 4] {
            let (ended, handled) = served(panics, concurrency).await;
            assert_eq!((ended, handled), (Some(ServeErrorKind::Ended), 0), "{panics:?}, {concurrency}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_panics_is_not_the_end_of_the_others() {
    for concurrency in [1, 4] {
        assert_eq!(served(Panics::Settling, concurrency).await, (None, 3), "{concurrency}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_panics_when_it_hears_of_a_failure_is_told_to_settle_all_the_same() {
    async fn fail(_order: String) -> Result<(), std::fmt::Error> {
        Err(std::fmt::Error)
    }
    let memory = Memory::recording();
    let broker = Altered::new(&memory, |received| {
        settled_by(received, |inner| PanickingSettle { inner, panics: Panics::AfterAFailure })
    });
    let running = serve(broker, App::new().subscribe(Channel::new("orders"), fail)).start().await.unwrap();
    memory.publisher().publish("orders", "1").await.unwrap();
    memory.idle().await;
    assert_eq!(memory.settled().len(), 10, "each attempt is settled");
    running.shutdown().await.unwrap();
}
