//! Temporary keys of the machine's role from the ECS metadata service.
//!
//! Source: `aliyun/credentials-go`, `ecs_ram_role.go`. Version 2 first takes a session token by PUT,
//! which a server-side request forgery cannot do; version 1 is the fallback unless it is refused.

use super::{
    Error, FailureCause, Obtain, Obtained,
    sts::{NAME_MAX, StsCredentials},
};
use crate::{
    http_client::{Client, Response},
    terminal::quote,
};
use bytes::Bytes;
use http::{Method, Request};
use serde::Deserialize;
use std::{future::Future, pin::Pin};

const SOURCE: &str = "ECS role";
const ROLES: &str = "/latest/meta-data/ram/security-credentials/";
/// Seconds that a session token of version 2 lives; one is taken for every refresh.
const SESSION_SECONDS: &str = "21600";

/// Keys of the role that is attached to this machine.
pub struct EcsRole {
    pub(super) base: String,
    /// Short timeouts: the service is on this machine's hypervisor, or it is not there.
    pub(super) client: Client,
    pub(super) role: Option<String>,
    pub(super) only_v2: bool,
}

impl Obtain for EcsRole {
    fn obtain(&self) -> Pin<Box<dyn Future<Output = Result<Obtained, Error>> + Send + '_>> {
        Box::pin(self.ask())
    }

    fn name(&self) -> &'static str {
        SOURCE
    }
}

#[derive(Deserialize)]
struct MetadataReply {
    #[serde(rename = "Code")]
    code: String,
    #[serde(flatten)]
    keys: Option<StsCredentials>,
}

impl EcsRole {
    async fn ask(&self) -> Result<Obtained, Error> {
        let session = self.session().await?;
        let role = match &self.role {
            Some(role) => role.clone(),
            None => self.attached_role(session.as_deref()).await?,
        };
        let reply = self.get(&format!("{ROLES}{role}"), session.as_deref()).await?;
        if reply.status.as_u16() != 200 {
            let status = reply.status.as_u16();
            return Err(Error::new(
                SOURCE,
                FailureCause::Refused,
                format!("the metadata service answered {status} for the role {role:?}"),
            ));
        }
        let reply: MetadataReply = serde_json::from_slice(&reply.body).map_err(|_| {
            Error::new(
                SOURCE,
                FailureCause::Unusable,
                "the metadata service answered with something that is not its JSON",
            )
        })?;
        match reply.keys {
            Some(keys) if reply.code == "Success" => {
                Ok(Obtained { credentials: keys.into_credentials(SOURCE)?, request_id: None })
            }
            _ => Err(Error::new(
                SOURCE,
                FailureCause::Refused,
                format!("the metadata service answered {:?} for {role:?}", quote(&reply.code, NAME_MAX)),
            )),
        }
    }

    /// None means version 1.
    async fn session(&self) -> Result<Option<String>, Error> {
        let request = self.request(Method::PUT, "/latest/api/token")?;
        let request = request.header("x-aliyun-ecs-metadata-token-ttl-seconds", SESSION_SECONDS);
        let (cause, why) = match self.client.send(request.body(Bytes::new()).map_err(unusable)?).await {
            Ok(Response { status, body, .. }) if status.as_u16() == 200 => match session_token(&body) {
                Some(token) => return Ok(Some(token)),
                None => (FailureCause::Unusable, "its reply is no token".to_owned()),
            },
            Ok(reply) => (FailureCause::Refused, format!("status {}", reply.status.as_u16())),
            Err(error) => (FailureCause::Unreachable, error.to_string()),
        };
        if self.only_v2 {
            return Err(Error::new(SOURCE, cause, format!("no metadata session ({why}), and version 1 is refused")));
        }
        Ok(None)
    }

    async fn attached_role(&self, session: Option<&str>) -> Result<String, Error> {
        let reply = self.get(ROLES, session).await?;
        let role = String::from_utf8_lossy(&reply.body).trim().to_owned();
        match reply.status.as_u16() {
            200 if role.len() > NAME_MAX => Err(Error::new(
                SOURCE,
                FailureCause::Unusable,
                "the metadata service answered with something that is no role",
            )),
            200 if !role.is_empty() => Ok(role),
            404 => Err(Error::new(SOURCE, FailureCause::Refused, "no RAM role is attached to this machine")),
            status => Err(Error::new(
                SOURCE,
                FailureCause::Refused,
                format!("the metadata service answered {status} when asked for roles"),
            )),
        }
    }

    async fn get(&self, path: &str, session: Option<&str>) -> Result<Response, Error> {
        let mut request = self.request(Method::GET, path)?;
        if let Some(session) = session {
            request = request.header("x-aliyun-ecs-metadata-token", session);
        }
        let request = request.body(Bytes::new()).map_err(unusable)?;
        self.client
            .send(request)
            .await
            .map_err(|error| Error::new(SOURCE, FailureCause::Unreachable, error.to_string()))
    }

    fn request(&self, method: Method, path: &str) -> Result<http::request::Builder, Error> {
        let url: http::Uri = format!("{}{path}", self.base).parse().map_err(|error: http::uri::InvalidUri| {
            Error::new(SOURCE, FailureCause::Settings, format!("{}{path} is not a URL: {error}", self.base))
        })?;
        Ok(Request::builder().method(method).uri(url))
    }
}

/// The text of a reply, if a header can carry it.
fn session_token(body: &[u8]) -> Option<String> {
    let token = body.trim_ascii();
    let is_token = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
    is_token.then(|| String::from_utf8_lossy(token).into_owned())
}

fn unusable(error: http::Error) -> Error {
    Error::new(SOURCE, FailureCause::Settings, format!("cannot ask the metadata service: {error}"))
}
