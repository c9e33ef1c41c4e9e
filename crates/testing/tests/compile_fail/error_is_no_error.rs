use throughline_core::App;
use throughline_memory::Channel;

struct OutOfStock;

async fn reserve(_order: String) -> Result<(), OutOfStock> {
    Err(OutOfStock)
}

fn main() {
    let _app: App = App::new().subscribe(Channel::new("orders.placed"), reserve);
}
