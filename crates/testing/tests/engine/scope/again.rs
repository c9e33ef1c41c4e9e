//! The same message handled twice: by a retry of the broker, and by two subscriptions.

use throughline_core::extract::{Baggage, ProcessSpan, State as AppState};
use throughline_core::{App, CurrentBaggage, CurrentSpan, Delivery, PublishError, Settlement};
use throughline_memory::Channel;

use super::states::{AS_IT_CAME, CHANGED, Own, State};

async fn change(delivery: &Delivery, baggage: &Baggage, span: &ProcessSpan) {
    span.set_attribute("order.first", true);
    delivery.baggage().set("warehouse", "north");
    CurrentBaggage::remove(baggage, "user");
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_comes_again_starts_anew() {
    async fn handle(
        delivery: Delivery,
        baggage: Baggage,
        span: ProcessSpan,
        AppState(own): AppState<Own>,
    ) -> Result<Settlement, PublishError> {
        if delivery.attempt() == 1 {
            change(&delivery, &baggage, &span).await;
            own.publish("first").await?;
            return Ok(Settlement::retry());
        }
        assert_eq!((delivery.baggage().get("warehouse"), baggage.get("warehouse")), (None, None));
        own.publish("again").await?;
        Ok(Settlement::Ack)
    }
    for state in State::ALL {
        let world = state.start(App::new().subscribe(Channel::new("orders"), handle)).await;
        world.arrive().await;
        world.sent("first", CHANGED).await;
        world.sent("again", AS_IT_CAME).await;
        world.test.settle().await;
        if state == State::Sampled {
            let tree = world.test.capture().tree();
            let firsts = tree.find_all("process orders");
            let marked = firsts.iter().filter(|span| throughline_testing::attribute(span, "order.first").is_some());
            assert_eq!((firsts.len(), marked.count()), (2, 1));
        }
    }
}

#[tokio::test]
async fn two_subscriptions_to_a_message_do_not_see_each_other() {
    async fn changes(
        delivery: Delivery,
        baggage: Baggage,
        span: ProcessSpan,
        AppState(own): AppState<Own>,
    ) -> Result<(), PublishError> {
        change(&delivery, &baggage, &span).await;
        own.publish("changed").await?;
        // Kept until the other has been called.
        own.kept.push(delivery);
        Ok(())
    }
    async fn looks(delivery: Delivery, baggage: Baggage, AppState(own): AppState<Own>) -> Result<(), PublishError> {
        while own.kept.take().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!((delivery.baggage().get("warehouse"), baggage.get("warehouse")), (None, None));
        own.publish("seen").await
    }
    for state in State::ALL {
        let app = App::new().subscribe(Channel::new("orders"), changes).subscribe(Channel::new("orders"), looks);
        let world = state.start(app).await;
        world.arrive().await;
        world.sent("changed", CHANGED).await;
        world.sent("seen", AS_IT_CAME).await;
    }
}
