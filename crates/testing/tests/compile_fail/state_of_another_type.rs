use throughline_core::App;
use throughline_core::extract::State;
use throughline_memory::Channel;

#[derive(Clone)]
struct Stock;

struct Prices;

async fn reserve(State(_stock): State<Stock>, _order: String) {}

fn main() {
    let _app = App::<Prices>::new().subscribe(Channel::new("orders.placed"), reserve).with_state(Prices);
}
