use throughline_core::{PublishError, Publisher};

struct Order;

async fn place(publisher: Publisher) -> Result<(), PublishError> {
    publisher.publish("orders.placed", Order).await?;
    Ok(())
}

fn main() {
    let _ = place;
}
