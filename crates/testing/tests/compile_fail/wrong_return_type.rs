use throughline_core::App;
use throughline_memory::Channel;

async fn reserve(_order: String) -> u64 {
    42
}

fn main() {
    let _app: App = App::new().subscribe(Channel::new("orders.placed"), reserve);
}
