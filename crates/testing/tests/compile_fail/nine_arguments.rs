use throughline_core::{App, Headers};
use throughline_memory::Channel;

type H = Headers;

async fn reserve(_: H, _: H, _: H, _: H, _: H, _: H, _: H, _: H, _: H) {}

fn main() {
    let _app: App = App::new().subscribe(Channel::new("orders.placed"), reserve);
}
