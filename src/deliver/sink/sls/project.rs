//! Signed requests to one project of Log Service.

use super::{
    MetricsPath, SlsSettings,
    reply::{NAME_MAX, RefusalAction, SlsRefusal},
    seal::SealedBody,
    settings::RequestTarget,
    sign::{Signer, UnsignedRequest, hex},
    time::ServiceTime,
};
use crate::{
    http_client::{Client, ClientError, ClientSettings},
    identity::{self, ClockOffset, Credentials, Identity, Utc, World},
    terminal::quote,
    trace::Signal,
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use md5::{Digest, Md5};
use std::{fmt, sync::Arc};

/// Why a request brought nothing.
#[derive(Debug)]
pub(super) enum RequestProblem {
    Keys(identity::Error),
    Network(ClientError),
    /// The clock was off and is set now; the times of a body may have to change as well.
    ClockSet(SlsRefusal),
    Refused(SlsRefusal),
}

impl fmt::Display for RequestProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestProblem::Keys(error) => write!(f, "no keys: {error}"),
            RequestProblem::Network(error) => error.fmt(f),
            RequestProblem::ClockSet(refusal) | RequestProblem::Refused(refusal) => refusal.fmt(f),
        }
    }
}

/// The way to a project: connections, keys, signature and the difference of the clocks.
pub(super) struct Project {
    place: RequestTarget,
    settings: SlsSettings,
    client: Client,
    identity: Arc<Identity>,
    signer: Signer,
    world: World,
    offset: ClockOffset,
    route: Option<String>,
}

struct ApiCall<'a> {
    method: &'static str,
    path: String,
    query: &'a [(&'a str, &'a str)],
    /// Of the service's own headers those that depend on the body.
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Project {
    pub(super) fn new(settings: SlsSettings, world: World) -> Result<Project, String> {
        let place = settings.place()?;
        let client = Client::new(ClientSettings {
            tls: (place.scheme == "https").then(|| settings.tls.clone()),
            connect_to: settings.connect_to.clone(),
            timeout: settings.timeout,
            ..Default::default()
        })?;
        let identity = Identity::new(&settings.auth, world.clone()).map_err(|error| format!("auth: {error}"))?;
        let route = settings.shard_key.as_ref().map(|key| hex(&Md5::digest(key)));
        let signer = Signer::new(settings.signature, &place.region);
        Ok(Project { place, settings, client, identity, signer, world, offset: ClockOffset::default(), route })
    }

    pub(super) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    pub(super) fn host(&self) -> &str {
        &self.place.host
    }

    /// The service's time.
    pub(super) fn now(&self) -> ServiceTime {
        ServiceTime(self.unix_millis() * 1_000_000)
    }

    /// PutLogs: all of the group or nothing.
    pub(super) async fn put(&mut self, signal: Signal, store: &str, body: SealedBody) -> Result<(), RequestProblem> {
        let mut headers = vec![
            ("content-type", "application/x-protobuf".to_owned()),
            ("x-log-bodyrawsize", body.raw_len.to_string()),
        ];
        headers.extend(body.packing.map(|packing| ("x-log-compresstype", packing.to_owned())));
        let route = self.route.clone();
        let query: &[_] = match &route {
            Some(key) if !self.is_prometheus(signal) => &[("key", key.as_str())],
            _ => &[],
        };
        let call = ApiCall { method: "POST", path: self.path(signal, store), query, headers, body: body.bytes };
        self.call(&call).await.map(|_| ())
    }

    /// Asks for a store's settings, which changes nothing; gives the request's id.
    pub(super) async fn probe(&mut self, store: &str) -> Result<String, RequestProblem> {
        let headers = vec![("x-log-bodyrawsize", "0".to_owned())];
        let path = format!("/logstores/{store}");
        let call = ApiCall { method: "GET", path, query: &[], headers, body: Bytes::new() };
        match self.call(&call).await {
            Err(RequestProblem::ClockSet(_)) => self.call(&call).await,
            other => other,
        }
    }

    fn is_prometheus(&self, signal: Signal) -> bool {
        signal == Signal::Metrics && self.settings.metrics_path == MetricsPath::Prometheus
    }

    fn path(&self, signal: Signal, store: &str) -> String {
        match &self.route {
            _ if self.is_prometheus(signal) => {
                format!("/prometheus/{}/{store}/api/v1/write", self.settings.project)
            }
            Some(_) => format!("/logstores/{store}/shards/route"),
            None => format!("/logstores/{store}/shards/lb"),
        }
    }

    /// One request, and a second one at once where the first was refused for its keys and there are others.
    async fn call(&mut self, call: &ApiCall<'_>) -> Result<String, RequestProblem> {
        let credentials = self.identity.current().await.map_err(RequestProblem::Keys)?;
        let refusal = match self.attempt(call, &credentials).await {
            Err(RequestProblem::Refused(refusal)) => refusal,
            other => return other,
        };
        match refusal.action {
            RefusalAction::RenewKeys => {
                tracing::warn!(access_key_id = credentials.id, %refusal, "keys were refused");
                let renewed = self.identity.replace(&credentials).await.map_err(RequestProblem::Keys)?;
                if credentials != renewed {
                    return self.attempt(call, &renewed).await;
                }
            }
            RefusalAction::SetClock if self.offset.learn(refusal.date.as_deref(), (self.world.unix_millis)()) => {
                tracing::warn!(seconds = self.offset.seconds(), "the clock is off, using log service's");
                return Err(RequestProblem::ClockSet(refusal));
            }
            _ => (),
        }
        Err(RequestProblem::Refused(refusal))
    }

    async fn attempt(&mut self, call: &ApiCall<'_>, credentials: &Credentials) -> Result<String, RequestProblem> {
        let request = self.signed(call, credentials);
        let reply = self.client.ask(request).await.map_err(RequestProblem::Network)?;
        let id = reply.headers.get("x-log-requestid").and_then(|id| id.to_str().ok()).unwrap_or("none");
        let id = quote(id, NAME_MAX);
        if reply.status.is_success() {
            return Ok(id);
        }
        let mut refusal = SlsRefusal::new(reply.status.as_u16(), &reply.headers, &reply.body);
        credentials.token.iter().chain([&credentials.secret]).for_each(|secret| refusal.hide(secret));
        Err(RequestProblem::Refused(refusal))
    }

    fn signed(&mut self, call: &ApiCall, credentials: &Credentials) -> Request<Bytes> {
        let mut headers = call.headers.clone();
        headers.push(("host", self.place.host.clone()));
        headers.push(("x-log-apiversion", "0.6.0".to_owned()));
        if self.settings.domain.is_some() {
            headers.push(("x-log-project", self.settings.project.clone()));
        }
        let mut message =
            UnsignedRequest { method: call.method, path: &call.path, query: call.query, headers, body: &call.body };
        let now = Utc(self.unix_millis() / 1000);
        self.signer.sign(&mut message, credentials, now);

        let url = format!("{}://{}{}", self.place.scheme, self.place.host, message.target());
        let mut request = Request::new(call.body.clone());
        *request.method_mut() = call.method.parse().expect("GET and POST are methods");
        *request.uri_mut() = url.parse().expect("host and names were checked at start");
        for (name, value) in message.headers {
            let mut value = HeaderValue::try_from(value).expect("keys were checked, all else is ASCII");
            value.set_sensitive(matches!(name, "authorization" | "x-acs-security-token"));
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        request
    }

    fn unix_millis(&self) -> u64 {
        self.offset.apply((self.world.unix_millis)())
    }
}
