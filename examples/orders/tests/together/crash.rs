//! Two thousand orders through three processes, one of which crashes in the middle.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use orders::demo::customer::{Answer, Customer, Purchase};
use orders::demo::load::Load;
use orders::messages::{NOTICES, NOTICES_STREAM, Notice};
use throughline::extract::{Json, State};
use throughline::nats::Stream;
use throughline::{App, Publisher, serve};
use throughline_cli::Receiver;
use tokio::sync::oneshot;

use crate::api::{PATIENCE, until};
use crate::brokers::{alone, nats};
use crate::services::{Folder, start};

const ORDERS: u64 = 2_000;

/// Lamps and chairs, and one in ten for who gets no credit.
fn purchase(number: u64) -> Purchase {
    let item = if number % 4 == 1 { "chair" } else { "lamp" };
    Purchase { tenant: if number % 10 == 3 { "initech" } else { "acme" }, item, count: 1 }
}

/// How an order ends, in the words of the storefront.
fn end(purchase: Purchase) -> &'static str {
    match (purchase.tenant, purchase.item) {
        ("initech", _) => "cancelled: no_credit",
        (_, "chair") => "invoiced: 5831 cents, ready at north",
        _ => "invoiced: 2261 cents, ready at north",
    }
}

/// Returns the orders of all notices that are stored, each as often as it is.
async fn noticed() -> Vec<u64> {
    let nats = nats().await.publish_to_streams();
    // Stands after all others, and is the number of no order.
    let last = u64::MAX - u64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap();
    let notice = Notice { order: last, cents: 0, warehouse: String::new() };
    Publisher::new(&nats).publish(NOTICES, Json(notice)).await.unwrap();
    let orders: Arc<Mutex<Vec<u64>>> = Arc::default();
    let note = async |State(orders): State<Arc<Mutex<Vec<u64>>>>, Json(notice): Json<Notice>| {
        orders.lock().unwrap().push(notice.order);
    };
    let name = format!("counts-{}", std::process::id());
    let all = Stream::new(NOTICES_STREAM).durable(name).filter(NOTICES).max_ack_pending(1);
    let app = App::new().subscribe(all, note).with_state(orders.clone());
    let running = serve(nats, app).start().await.unwrap();
    until("the last notice is there", async || orders.lock().unwrap().contains(&last).then_some(())).await;
    running.shutdown().await.unwrap();
    let orders = orders.lock().unwrap().clone();
    orders
}

#[tokio::test]
#[ignore = "needs all brokers: cargo xtask test"]
async fn a_crash_of_the_warehouse_loses_no_order_and_invoices_none_twice() {
    let _alone = alone().await;
    let logs = Folder::new();
    let receiver = Receiver::start(([127, 0, 0, 1], 0).into(), ["tenant"]).await.unwrap();
    let mut services = start(&logs, &format!("http://{}", receiver.address())).await;
    let customer = Customer::new(&services.url());

    let mut placed: BTreeMap<u64, Purchase> = BTreeMap::new();
    let (half, at_half) = oneshot::channel();
    let mut half = Some(half);
    let load = Load { orders: Some(ORDERS), rate: NonZeroU32::new(400).unwrap(), purchase };
    let placing = load.run(&customer, |(purchase, answer)| {
        let Answer::Taken(order) = answer.unwrap() else { panic!("{purchase:?} is refused") };
        assert!(placed.insert(order, purchase).is_none(), "{order} is taken twice");
        if placed.len() as u64 == ORDERS / 2 {
            half.take().unwrap().send(()).unwrap();
        }
    });
    let crash = async {
        at_half.await.unwrap();
        services.warehouse.kill().await.unwrap();
        services.warehouse.start().await.unwrap_or_else(|error| panic!("{error}"));
    };
    tokio::join!(placing, crash);
    assert_eq!(placed.len() as u64, ORDERS);

    for (order, purchase) in &placed {
        assert_eq!(customer.end(*order, PATIENCE).await.unwrap(), end(*purchase), "{order}: {purchase:?}");
    }
    services.stop().await.unwrap_or_else(|error| panic!("{error}"));
    drop(receiver.finish().await);

    let mut invoiced: Vec<u64> = noticed().await.into_iter().filter(|order| placed.contains_key(order)).collect();
    invoiced.sort_unstable();
    let twice: BTreeSet<u64> = invoiced.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    assert!(twice.is_empty(), "invoiced twice: {twice:?}");
    let with_credit = placed.iter().filter(|(_, purchase)| purchase.tenant != "initech").map(|(order, _)| *order);
    assert_eq!(invoiced, with_credit.collect::<Vec<_>>());
}
