//! What `POST /policy/plan` is asked, and how it is read.

use super::route::{AdminReply, text};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

/// Bytes of a request: two policies and some conditions.
pub(super) const REQUEST_MAX: usize = 4 << 20;
/// It must be here by then: others have no turn meanwhile.
pub(super) const BODY_TIME: Duration = Duration::from_secs(10);
/// A candidate that came without a name.
const UNNAMED: &str = "the candidate";

/// A policy, and what its file is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanPolicy {
    pub file: String,
    pub text: String,
}

/// What would a policy do?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    pub new: PlanPolicy,
    /// None: the policy in force.
    #[serde(default)]
    pub old: Option<PlanPolicy>,
    /// Conditions as `when:` has them.
    #[serde(default)]
    pub fail_if_dropped: Vec<String>,
}

/// Held while a plan is made, from before its request is read: there is one, so that many requests hold no more than
/// one does.
pub type PlanTurn = OwnedSemaphorePermit;

impl PlanRequest {
    /// JSON, or the text of a policy alone.
    fn read(is_json: bool, body: Bytes) -> Result<PlanRequest, String> {
        if is_json {
            return serde_json::from_slice(&body).map_err(|error| format!("this is no request for a plan: {error}\n"));
        }
        let text = String::from_utf8(body.into()).map_err(|_| "the policy is not UTF-8\n".to_owned())?;
        let new = PlanPolicy { file: UNNAMED.to_owned(), text };
        Ok(PlanRequest { new, old: None, fail_if_dropped: Vec::new() })
    }

    /// Whoever calls has the turn, so that one body is held.
    pub(super) async fn of<B>(request: Request<B>) -> Result<PlanRequest, AdminReply>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        let is_json = content_type.is_some_and(|value| value.starts_with(b"application/json"));
        let body = timeout(BODY_TIME, Limited::new(request.into_body(), REQUEST_MAX).collect()).await;
        let body = body
            .map_err(|_| text(StatusCode::REQUEST_TIMEOUT, "the request did not end within 10 seconds\n"))?
            .map_err(|_| {
                text(StatusCode::PAYLOAD_TOO_LARGE, "the request has more than 4 MiB, or ended before its end\n")
            })?;
        PlanRequest::read(is_json, body.to_bytes()).map_err(|why| text(StatusCode::BAD_REQUEST, why))
    }
}

/// The answer to whoever has no turn. What he sends is read and let go: he may not listen before its end.
pub(super) async fn busy<B>(request: Request<B>) -> AdminReply
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    let mut body = pin!(Limited::new(request.into_body(), REQUEST_MAX));
    let reading = async { while let Some(Ok(_)) = body.frame().await {} };
    // Whoever has sent too much, or too slowly, hears it now.
    let _ = timeout(BODY_TIME, reading).await;
    text(StatusCode::CONFLICT, "another plan is being made: ask again in a few seconds\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_json_or_the_text_of_a_policy() {
        let of = |is_json, body: &'static str| PlanRequest::read(is_json, Bytes::from_static(body.as_bytes()));
        assert_eq!(of(false, "{ version: 1 }").unwrap().new.text, "{ version: 1 }");
        let json = r#"{"new":{"file":"f","text":"t"},"fail_if_dropped":["error"]}"#;
        assert_eq!(of(true, json).unwrap().fail_if_dropped, ["error"]);
        assert!(of(true, "{\"new\": 1}").is_err() && of(true, "version: 1").is_err());
    }
}
