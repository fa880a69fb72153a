//! Two small HTTP listeners. `health` (`/healthz`, `/readyz`, `/metrics`) shows no content of traces and
//! asks nobody who he is; `admin` (`/policy` and below it, `/why/{id}`, `/traces/{id}`, `/keep/{id}`) does show it, so
//! it listens on loopback or wants a token.

pub mod answer;
mod pieces;

pub use answer::{Answer, Seen};

use crate::trace::TraceId;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pieces::Content;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// Connections of one listener at a time; further ones wait.
const CONNECTIONS: usize = 64;
/// A request's header must be here by then.
const HEADER_TIME: Duration = Duration::from_secs(10);

/// Whoever can answer. Called on a thread where blocking does no harm.
pub trait AdminApi: Send + Sync + 'static {
    /// False before the policy is loaded and while draining. Overload does not make it false.
    fn is_ready(&self) -> bool;
    /// All metrics as Prometheus text.
    fn metrics(&self) -> String;
    /// The policy in force, as JSON.
    fn policy(&self) -> String;
    /// The one that was in force before it, if there was one.
    fn former_policy(&self) -> Option<String>;
    /// Puts that one in force again, and says what is in force now.
    fn restore_policy(&self) -> Option<String>;
    fn why(&self, id: TraceId) -> Answer;
    /// Gives the spans of a trace, from the ring or the store, in pieces: fields of an `ExportTraceServiceRequest`.
    /// False if the trace is unknown. An error is `give`'s, or says why the rest cannot be read.
    fn trace(&self, id: TraceId, give: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool>;
    /// Keeps a trace that is in the ring.
    fn keep(&self, id: TraceId) -> bool;
}

/// What a listener answers.
#[derive(Clone)]
pub enum Audience {
    Health,
    /// With a token, requests must carry `Authorization: Bearer TOKEN`.
    Admin {
        token: Option<Arc<str>>,
    },
}

/// Serves until `stop` becomes true.
pub async fn serve(listener: TcpListener, scope: Audience, desk: Arc<dyn AdminApi>, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let turns = Arc::new(Semaphore::new(pieces::AT_ONCE));
    loop {
        let place = places.clone().acquire_owned().await.expect("never closed");
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.map(|(stream, _)| stream),
            // A sender that has gone means the same as "stop".
            _ = stop.changed() => return,
        };
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: it passes.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (scope, desk, turns) = (scope.clone(), desk.clone(), turns.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, scope.clone(), desk.clone(), turns.clone()));
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
            // A peer that goes away in the middle is its own affair.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
            drop(place);
        });
    }
}

type Reply = Response<Content>;

async fn answer(
    request: Request<Incoming>,
    scope: Audience,
    desk: Arc<dyn AdminApi>,
    turns: Arc<Semaphore>,
) -> Result<Reply, Infallible> {
    let work = move || match &scope {
        Audience::Health => health(&request, desk.as_ref()),
        Audience::Admin { token } if !is_allowed(&request, token.as_deref()) => {
            let mut reply = text(StatusCode::UNAUTHORIZED, "this listener wants `Authorization: Bearer TOKEN`\n");
            reply.headers_mut().insert(header::WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
            reply
        }
        Audience::Admin { .. } => admin(&request, desk, turns),
    };
    let failed = |_| text(StatusCode::INTERNAL_SERVER_ERROR, "answering failed, see the log\n");
    Ok(tokio::task::spawn_blocking(work).await.unwrap_or_else(failed))
}

/// Compares the whole token whatever the first difference, so that time tells nothing.
fn is_allowed(request: &Request<Incoming>, token: Option<&str>) -> bool {
    let Some(token) = token else { return true };
    let given = request.headers().get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    let wanted = format!("Bearer {token}");
    let differences = given.iter().zip(wanted.as_bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    given.len() == wanted.len() && differences == 0
}

fn health(request: &Request<Incoming>, desk: &dyn AdminApi) -> Reply {
    if let Some(reply) = wrong_method(request, &Method::GET) {
        return reply;
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" if desk.is_ready() => text(StatusCode::OK, "ready\n"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "starting or draining\n"),
        "/metrics" => typed("text/plain; version=0.0.4; charset=utf-8", desk.metrics()),
        _ => text(StatusCode::NOT_FOUND, "here are /healthz, /readyz and /metrics\n"),
    }
}

fn admin(request: &Request<Incoming>, desk: Arc<dyn AdminApi>, turns: Arc<Semaphore>) -> Reply {
    const JSON: &str = "application/json";
    let path = request.uri().path();
    let (place, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    let id = TraceId::parse(rest);
    let is_restore = (place, rest) == ("policy", "restore");
    let method = if place == "keep" || is_restore { &Method::POST } else { &Method::GET };
    if let Some(reply) = wrong_method(request, method) {
        return reply;
    }
    // Any page could otherwise have the browser of whoever can reach this listener send it.
    if method == Method::POST && request.headers().contains_key(header::ORIGIN) {
        return text(StatusCode::FORBIDDEN, "pages in a browser may change nothing here\n");
    }
    match (place, id) {
        ("policy", _) if rest.is_empty() => typed(JSON, desk.policy()),
        ("policy", _) if rest == "previous" || is_restore => {
            let found = if is_restore { desk.restore_policy() } else { desk.former_policy() };
            let none = || text(StatusCode::NOT_FOUND, "no policy was in force before this one\n");
            found.map_or_else(none, |policy| typed(JSON, policy))
        }
        ("why", Some(id)) => typed(JSON, desk.why(id).to_json()),
        ("traces", Some(id)) => pieces::trace(turns, move |give| desk.trace(id, give)),
        ("keep", Some(id)) if desk.keep(id) => text(StatusCode::OK, "kept\n"),
        ("keep", Some(_)) => text(StatusCode::NOT_FOUND, "the ring does not have this trace (any more)\n"),
        ("why" | "traces" | "keep", None) => text(
            StatusCode::BAD_REQUEST,
            "a trace id is 32 hexadecimal digits, like 4bf92f3577b34da6a3ce929d0e0e4736\n",
        ),
        _ => text(
            StatusCode::NOT_FOUND,
            "here are /policy, /policy/previous, /why/{id}, /traces/{id}, and (POST) /policy/restore and /keep/{id}\n",
        ),
    }
}

fn wrong_method(request: &Request<Incoming>, wanted: &'static Method) -> Option<Reply> {
    (request.method() != wanted).then(|| {
        let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, "another method is wanted, see `Allow`\n");
        let allow = http::HeaderValue::from_static(if *wanted == Method::POST { "POST" } else { "GET" });
        reply.headers_mut().insert(header::ALLOW, allow);
        reply
    })
}

fn text(status: StatusCode, body: &'static str) -> Reply {
    let mut reply = Response::new(Content::Whole(Full::from(body)));
    *reply.status_mut() = status;
    reply
}

fn typed(content_type: &'static str, body: impl Into<Content>) -> Reply {
    let mut reply = Response::new(body.into());
    reply.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    reply
}
