use throughline_core::App;
use throughline_core::extract::Json;
use throughline_memory::Channel;

struct Order;

async fn reserve(Json(_order): Json<Order>) {}

fn main() {
    let _app: App = App::new().subscribe(Channel::new("orders.placed"), reserve);
}
