use throughline_core::App;
use throughline_memory::Channel;

fn reserve(_order: String) {}

fn main() {
    let _app: App = App::new().subscribe(Channel::new("orders.placed"), reserve);
}
