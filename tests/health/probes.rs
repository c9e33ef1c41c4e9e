use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use throughline::serve::Health;

async fn livez(State(health): State<Health>) -> (StatusCode, String) {
    answer(health.is_live(), &health)
}

async fn readyz(State(health): State<Health>) -> (StatusCode, String) {
    answer(health.is_ready(), &health)
}

fn answer(is_so: bool, health: &Health) -> (StatusCode, String) {
    let status = if is_so { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, health.to_string()) // the text says why
}

fn probes(health: Health) -> Router {
    Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).with_state(health)
}
