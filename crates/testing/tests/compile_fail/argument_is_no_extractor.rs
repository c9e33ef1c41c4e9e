use throughline_core::App;
use throughline_memory::Channel;

struct Order;

async fn reserve(_order: Order) {}

fn main() {
    let _app: App = App::new().subscribe(Channel::new("orders.placed"), reserve);
}
