use throughline_core::{App, serve};
use throughline_core::extract::State;
use throughline_memory::{Channel, Memory};

#[derive(Clone)]
struct Stock;

async fn reserve(State(_stock): State<Stock>, _order: String) {}

fn main() {
    let app = App::new().subscribe(Channel::new("orders.placed"), reserve);
    let _serving = serve(Memory::new(), app);
}
