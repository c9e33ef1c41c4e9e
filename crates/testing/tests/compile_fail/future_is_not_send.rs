use std::rc::Rc;

use throughline_core::App;
use throughline_memory::Channel;

async fn reserve(order: String) {
    let shared = Rc::new(order);
    std::future::ready(()).await;
    drop(shared);
}

fn main() {
    let _app: App = App::new().subscribe(Channel::new("orders.placed"), reserve);
}
