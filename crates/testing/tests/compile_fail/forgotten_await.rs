#![deny(unused_must_use)]

use throughline_core::Publisher;

async fn place(publisher: Publisher) {
    publisher.publish("orders.placed", "42");
}

fn main() {
    let _ = place;
}
