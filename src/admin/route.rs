//! Which question is answered by what.

use super::caller;
use super::content::AdminBody;
use super::page::Pages;
use super::{AdminApi, Audience, PlanRequest, pieces, plan};
use crate::prometheus::PageReader;
use crate::secret::Credential;
use crate::trace::TraceId;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Body;
use std::error::Error;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Requests of one listener that are being answered at a time; further ones wait.
const REQUESTS: usize = 8;
const JSON: &str = "application/json";

pub(super) type AdminReply = Response<AdminBody>;

/// Answers what is asked of one listener.
pub(super) struct Router {
    audience: Audience,
    api: Arc<dyn AdminApi>,
    pages: Pages,
    requests: Arc<Semaphore>,
    traces: Arc<Semaphore>,
}

impl Router {
    pub fn new(audience: Audience, api: Arc<dyn AdminApi>) -> Router {
        Router {
            audience,
            pages: Pages::new(api.clone()),
            api,
            requests: Arc::new(Semaphore::new(REQUESTS)),
            traces: Arc::new(Semaphore::new(pieces::AT_ONCE)),
        }
    }

    pub async fn answer<B>(&self, request: Request<B>) -> AdminReply
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        match &self.audience {
            Audience::Health => self.health(&request).await,
            Audience::Admin { token } => self.admin(request, token.as_deref()).await,
        }
    }

    /// Probes are answered here and now: they wait for no thread and no lock.
    async fn health<B>(&self, request: &Request<B>) -> AdminReply {
        let path = request.uri().path();
        if !matches!(path, "/healthz" | "/readyz" | "/metrics") {
            return text(StatusCode::NOT_FOUND, "here are /healthz, /readyz and /metrics\n");
        }
        if let Some(refusal) = wrong_method(request, Wanted::Read) {
            return refusal;
        }
        match path {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" if self.api.is_ready() => text(StatusCode::OK, "ready\n"),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "starting or draining\n"),
            _ => match self.pages.get(PageReader::of(request.headers())).await {
                Some(page) => typed("text/plain; version=0.0.4; charset=utf-8", AdminBody::Shared(page, 0)),
                None => failed(),
            },
        }
    }

    async fn admin<B>(&self, request: Request<B>, token: Option<&Credential>) -> AdminReply
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        if let Some(refusal) = caller::refusal(&request, token) {
            return refusal;
        }
        let asked = match AdminRequest::of(request.uri().path()) {
            Ok(asked) => asked,
            Err((status, help)) => return text(status, help),
        };
        if let Some(refusal) = wrong_method(&request, asked.wanted()) {
            return refusal;
        }
        let (api, traces) = (self.api.clone(), self.traces.clone());
        match asked {
            AdminRequest::Policy => self.work(move || typed(JSON, api.policy().into())).await,
            AdminRequest::FormerPolicy => self.work(move || policy_before(api.former_policy())).await,
            AdminRequest::RestorePolicy => self.work(move || policy_before(api.restore_policy())).await,
            AdminRequest::Plan => self.plan(request).await,
            AdminRequest::Traffic => match api.take_plan_turn() {
                Some(turn) => self.work(move || typed(JSON, api.traffic(turn).into())).await,
                None => plan::busy(request).await,
            },
            AdminRequest::Why(id) => self.work(move || typed(JSON, api.why(id).to_json().into())).await,
            AdminRequest::Trace(id) => self.work(move || pieces::trace(traces, move |give| api.trace(id, give))).await,
            AdminRequest::Keep(id) => self.work(move || keep(&*api, id)).await,
        }
    }

    /// The turn comes before the body, so that of all who ask one body is held.
    async fn plan<B>(&self, request: Request<B>) -> AdminReply
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        let api = self.api.clone();
        let Some(turn) = api.take_plan_turn() else { return plan::busy(request).await };
        match PlanRequest::of(request).await {
            Ok(wanted) => self.work(move || planned(api.plan(turn, &wanted))).await,
            Err(refusal) => refusal,
        }
    }

    async fn work(&self, answer: impl FnOnce() -> AdminReply + Send + 'static) -> AdminReply {
        let turn = self.requests.clone().acquire_owned().await.expect("never closed");
        // The turn goes with the work, which goes on when whoever asked has gone away.
        let work = move || {
            let _turn = turn;
            answer()
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| failed())
    }
}

/// What the admin listener is asked.
enum AdminRequest {
    Policy,
    FormerPolicy,
    RestorePolicy,
    Plan,
    Traffic,
    Why(TraceId),
    Trace(TraceId),
    Keep(TraceId),
}

impl AdminRequest {
    /// An error is an answer's status and text.
    fn of(path: &str) -> Result<AdminRequest, (StatusCode, &'static str)> {
        // `CONNECT` and what is no path at all begin without a slash.
        let path = path.strip_prefix('/').unwrap_or_default();
        let (place, rest) = path.split_once('/').unwrap_or((path, ""));
        match (place, rest, TraceId::parse(rest)) {
            ("policy", "", _) => Ok(AdminRequest::Policy),
            ("policy", "previous", _) => Ok(AdminRequest::FormerPolicy),
            ("policy", "restore", _) => Ok(AdminRequest::RestorePolicy),
            ("policy", "plan", _) => Ok(AdminRequest::Plan),
            ("policy", "traffic", _) => Ok(AdminRequest::Traffic),
            ("why", _, Some(id)) => Ok(AdminRequest::Why(id)),
            ("traces", _, Some(id)) => Ok(AdminRequest::Trace(id)),
            ("keep", _, Some(id)) => Ok(AdminRequest::Keep(id)),
            ("why" | "traces" | "keep", _, None) => Err((
                StatusCode::BAD_REQUEST,
                "a trace id is 32 hexadecimal digits, like 4bf92f3577b34da6a3ce929d0e0e4736\n",
            )),
            _ => Err((
                StatusCode::NOT_FOUND,
                "here are /policy, /policy/previous, /policy/traffic, /why/{id}, /traces/{id}, and (POST) /policy/restore, \
                 /policy/plan and /keep/{id}\n",
            )),
        }
    }

    fn wanted(&self) -> Wanted {
        match self {
            AdminRequest::Keep(_) | AdminRequest::RestorePolicy | AdminRequest::Plan => Wanted::Post,
            _ => Wanted::Read,
        }
    }
}

/// How a path is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Load balancers probe by `HEAD`; hyper leaves the body out then.
    Read,
    Post,
}

fn wrong_method<B>(request: &Request<B>, wanted: Wanted) -> Option<AdminReply> {
    let (is_right, allow) = match wanted {
        Wanted::Read => (matches!(*request.method(), Method::GET | Method::HEAD), "GET, HEAD"),
        Wanted::Post => (request.method() == Method::POST, "POST"),
    };
    (!is_right).then(|| {
        let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, "another method is wanted, see `Allow`\n");
        reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
        reply
    })
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> AdminReply {
    let mut reply = Response::new(AdminBody::Whole(Full::from(body.into())));
    *reply.status_mut() = status;
    reply
}

pub(super) fn typed(content_type: &'static str, content: AdminBody) -> AdminReply {
    let mut reply = Response::new(content);
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

fn planned(report: Result<String, String>) -> AdminReply {
    match report {
        Ok(report) => typed(JSON, report.into()),
        Err(why) => text(StatusCode::BAD_REQUEST, why),
    }
}

fn keep(api: &dyn AdminApi, id: TraceId) -> AdminReply {
    match api.keep(id) {
        true => text(StatusCode::OK, "kept\n"),
        false => text(StatusCode::NOT_FOUND, "the ring does not have this trace (any more)\n"),
    }
}

fn policy_before(found: Option<String>) -> AdminReply {
    match found {
        Some(policy) => typed(JSON, policy.into()),
        None => text(StatusCode::NOT_FOUND, "no policy was in force before this one\n"),
    }
}

fn failed() -> AdminReply {
    text(StatusCode::INTERNAL_SERVER_ERROR, "answering failed, see the log\n")
}
