//! Takes requests, over gRPC and over HTTP on the same port: who mixes up the ports is served as well.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tonic::Code;

use super::answer::{Form, Problem};
use super::hold::Hold;
use super::tally::Losses;
use super::{grpc, http};

/// How many requests of a port are read at the same time.
const AT_ONCE: usize = 32;

/// How long a request may take to come in.
const PATIENCE: Duration = Duration::from_secs(10);

/// What each request passes.
#[derive(Clone, Debug)]
struct Door {
    hold: Arc<Hold>,
    room: Arc<Semaphore>,
}

/// Serves a port until `stopped` is told, and then what is being answered.
pub(super) async fn serve(listener: TcpListener, hold: Arc<Hold>, mut stopped: watch::Receiver<()>) {
    let door = Door { hold: hold.clone(), room: Arc::new(Semaphore::new(AT_ONCE)) };
    let router = Router::new()
        .merge(grpc::routes(hold.clone()))
        .merge(http::routes(hold))
        .fallback(elsewhere)
        .layer(from_fn_with_state(door, guard));
    let stop = async move {
        // It is told when the sender goes away.
        let _ = stopped.changed().await;
    };
    // It fails for no connection, and never as a whole.
    let _ = axum::serve(listener, router).with_graceful_shutdown(stop).await;
}

/// Bounds what is under way, and counts what is not taken.
async fn guard(State(door): State<Door>, request: Request, next: Next) -> Response {
    let (is_grpc, form) = (is_grpc(request.headers()), Form::of(request.headers()).unwrap_or(Form::Json));
    let taken = match door.room.try_acquire() {
        Ok(_room) => tokio::time::timeout(PATIENCE, next.run(request)).await.map_err(|_| Problem::too_slow()),
        Err(_) => Err(Problem::busy()),
    };
    let response = match taken {
        Ok(response) if is_grpc => grpc::corrected(response),
        Ok(response) => response,
        Err(problem) if is_grpc => tonic::Status::from(problem).into_http(),
        Err(problem) => problem.respond(form),
    };
    door.hold.lost(loss(&response));
    response
}

/// Answers what is for no signal.
async fn elsewhere(headers: HeaderMap) -> Response {
    if is_grpc(&headers) {
        tonic::Status::from(Problem::unknown_place()).into_http()
    } else {
        Problem::unknown_place().respond(Form::of(&headers).unwrap_or(Form::Json))
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// What is lost by an answer.
fn loss(response: &Response) -> Losses {
    let none = Losses::default();
    match (response.status(), grpc::code(response)) {
        (StatusCode::PAYLOAD_TOO_LARGE, _) | (_, Some(Code::ResourceExhausted)) => Losses { too_large: 1, ..none },
        (StatusCode::SERVICE_UNAVAILABLE, _) | (_, Some(Code::Unavailable)) => Losses { sent_away: 1, ..none },
        (StatusCode::OK, None | Some(Code::Ok)) => none,
        _ => Losses { unreadable: 1, ..none },
    }
}
