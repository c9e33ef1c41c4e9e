use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use throughline::broker::Broker;
use throughline::opentelemetry::context::FutureExt;
use throughline::serve::Serve;
use throughline::telemetry::Instrumentation;
use throughline::{App, Headers, Publisher, serve};
use tokio::net::TcpListener;

#[derive(Clone)]
struct Entrance {
    otel: Instrumentation,
    publisher: Publisher,
}

async fn place(State(entrance): State<Entrance>, headers: HeaderMap, order: String) -> StatusCode {
    let headers = Headers::from_iter(headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())));
    let context = entrance.otel.server_span("POST /orders", &headers); // takes `traceparent` and `baggage`
    let publish = async { entrance.publisher.publish("orders.placed", order).await };
    match publish.with_context(context).await {
        Ok(_) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE, // the span of the publish says why
    }
}

fn service(broker: impl Broker, app: App, entrance: Entrance, listener: TcpListener) -> Serve {
    let router = Router::new().route("/orders", post(place)).with_state(entrance);
    serve(broker, app)
        .alongside("http", |stop| async move {
            axum::serve(listener, router).with_graceful_shutdown(stop.requested()).await
        })
        .with_signals()
}
