use throughline_core::{App, Handler};
use throughline_core::extract::Json;
use throughline_memory::Channel;

struct Reserved;

async fn reserve(_order: String) -> Json<Reserved> {
    Json(Reserved)
}

fn main() {
    let _app: App = App::new().subscribe(Channel::new("orders.placed"), reserve.reply_to("stock.reserved"));
}
