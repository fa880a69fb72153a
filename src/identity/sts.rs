//! Temporary keys from the Security Token Service: AssumeRoleWithOIDC (RRSA) and AssumeRole.
//!
//! Source: `aliyun/credentials-go`, `oidc.go` and `ram_role_arn.go`.

use super::{
    ClockOffset, Credentials, Error, FailureCause, Identity, Obtain, Obtained, Secret, Utc, World, percent_encode,
};
use crate::{http_client::Client, terminal::quote};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use hmac::{Hmac, Mac};
use http::{
    Request,
    header::{CONTENT_TYPE, DATE},
};
use serde::Deserialize;
use sha1::Sha1;
use std::{future::Future, path::PathBuf, pin::Pin, sync::Arc};

/// The STS endpoint and the way to it.
pub(super) struct Sts {
    /// Scheme and host, without a path.
    pub(super) base: String,
    pub(super) client: Client,
    pub(super) duration_seconds: u32,
    pub(super) world: World,
    /// How far STS's clock is from ours: it refuses calls that are more than 15 minutes off.
    pub(super) offset: ClockOffset,
}

/// A pod's service account token, exchanged for keys of a role. The call is not signed.
pub struct Rrsa {
    pub(super) sts: Sts,
    pub(super) role_arn: String,
    pub(super) provider_arn: String,
    pub(super) token_file: PathBuf,
    pub(super) session_name: String,
}

/// Keys of a role, asked for with other keys.
pub struct AssumeRole {
    pub(super) sts: Sts,
    pub(super) base: Arc<Identity>,
    pub(super) role_arn: String,
    pub(super) session_name: String,
    pub(super) external_id: Option<String>,
}

/// Characters shown of a message, and of a code or id.
const MESSAGE_MAX: usize = 300;
pub(super) const NAME_MAX: usize = 100;

/// STS's code for a timestamp that is too old or lies in the future.
const CLOCK_REFUSAL: &str = "InvalidTimeStamp.Expired";

type Parameters = Vec<(&'static str, String)>;

impl Obtain for Rrsa {
    fn obtain(&self) -> Pin<Box<dyn Future<Output = Result<Obtained, Error>> + Send + '_>> {
        Box::pin(self.sts.by_its_clock(|| self.exchange()))
    }

    fn name(&self) -> &'static str {
        "RRSA"
    }
}

impl Rrsa {
    async fn exchange(&self) -> Result<Obtained, Error> {
        let token = tokio::fs::read_to_string(&self.token_file).await.map_err(|error| {
            let file = self.token_file.display();
            Error::new(
                "RRSA",
                FailureCause::Settings,
                format!("cannot read the token file {file}: {error}; is RRSA enabled for this pod?"),
            )
        })?;
        if token.trim().is_empty() {
            let file = self.token_file.display();
            return Err(Error::new(
                "RRSA",
                FailureCause::Settings,
                format!("the token file {file} is empty; is RRSA enabled for this pod?"),
            ));
        }
        let query = self.sts.common("AssumeRoleWithOIDC");
        // In the body, not the query: request lines end up in access logs.
        let form = vec![
            ("RoleArn", self.role_arn.clone()),
            ("OIDCProviderArn", self.provider_arn.clone()),
            ("OIDCToken", token.trim().to_owned()),
            ("RoleSessionName", self.session_name.clone()),
            ("DurationSeconds", self.sts.duration_seconds.to_string()),
        ];
        self.sts.call("RRSA", &query, &form).await
    }
}

impl Obtain for AssumeRole {
    fn obtain(&self) -> Pin<Box<dyn Future<Output = Result<Obtained, Error>> + Send + '_>> {
        Box::pin(self.sts.by_its_clock(|| self.exchange()))
    }

    fn name(&self) -> &'static str {
        "AssumeRole"
    }
}

impl AssumeRole {
    async fn exchange(&self) -> Result<Obtained, Error> {
        let keys = self.base.current().await?;
        let mut query = self.sts.common("AssumeRole");
        let mut form = vec![
            ("RoleArn", self.role_arn.clone()),
            ("RoleSessionName", self.session_name.clone()),
            ("DurationSeconds", self.sts.duration_seconds.to_string()),
        ];
        form.extend(self.external_id.clone().map(|id| ("ExternalId", id)));
        let nonce = format!("{:016x}{:016x}", (self.sts.world.random)(), (self.sts.world.random)());
        query.extend([
            ("SignatureMethod", "HMAC-SHA1".to_owned()),
            ("SignatureVersion", "1.0".to_owned()),
            ("SignatureNonce", nonce),
            ("AccessKeyId", keys.id.clone()),
        ]);
        form.extend(keys.token.as_ref().map(|token| ("SecurityToken", token.expose().to_owned())));
        let signature = sign("POST", query.iter().chain(&form), &keys.secret);
        query.push(("Signature", signature));
        self.sts.call("AssumeRole", &query, &form).await
    }
}

impl Sts {
    /// One exchange, and a second one if the first taught that our clock is off.
    async fn by_its_clock<F>(&self, exchange: impl Fn() -> F) -> Result<Obtained, Error>
    where
        F: Future<Output = Result<Obtained, Error>>,
    {
        let before = self.offset.seconds();
        match exchange().await {
            Err(_) if self.offset.seconds() != before => exchange().await,
            outcome => outcome,
        }
    }

    fn now(&self) -> u64 {
        self.offset.apply((self.world.unix_millis)())
    }

    fn common(&self, action: &str) -> Parameters {
        vec![
            ("Action", action.to_owned()),
            ("Format", "JSON".to_owned()),
            ("Version", "2015-04-01".to_owned()),
            ("Timestamp", Utc(self.now() / 1000).iso()),
        ]
    }

    async fn call(
        &self,
        source: &'static str,
        query: &[(&'static str, String)],
        form: &[(&'static str, String)],
    ) -> Result<Obtained, Error> {
        let request = Request::post(format!("{}/?{}", self.base, joined(query)))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Bytes::from(joined(form)))
            .map_err(|error| {
                Error::new(
                    source,
                    FailureCause::Settings,
                    format!("{} is not a usable STS endpoint: {error}", self.base),
                )
            })?;
        let reply = self
            .client
            .send(request)
            .await
            .map_err(|error| Error::new(source, FailureCause::Unreachable, error.to_string()))?;
        let secrets = form.iter().filter(|(name, _)| matches!(*name, "OIDCToken" | "SecurityToken"));
        let secrets: Vec<_> = secrets.map(|(_, value)| value.as_str()).collect();
        let mut outcome = read_reply(source, reply.status.as_u16(), &reply.body, &secrets);
        if let Ok(Obtained { credentials: Credentials { expires: Some(expires), .. }, .. }) = &mut outcome {
            *expires = expires.saturating_add_signed(-self.offset.seconds());
        }
        if let Err(error) = &outcome
            && error.what.contains(CLOCK_REFUSAL)
            && self
                .offset
                .learn(reply.headers.get(DATE).and_then(|date| date.to_str().ok()), (self.world.unix_millis)())
        {
            tracing::warn!(seconds = self.offset.seconds(), "the clock is off, using STS's");
        }
        outcome
    }
}

fn joined(parameters: &[(&'static str, String)]) -> String {
    let pairs: Vec<_> =
        parameters.iter().map(|(name, value)| format!("{}={}", percent_encode(name), percent_encode(value))).collect();
    pairs.join("&")
}

/// The signature of Alibaba Cloud's RPC-style interfaces over all parameters of query and form.
fn sign<'a>(method: &str, parameters: impl Iterator<Item = &'a (&'static str, String)>, secret: &Secret) -> String {
    let mut sorted: Parameters = parameters.cloned().collect();
    sorted.sort_unstable();
    let text = format!("{method}&%2F&{}", percent_encode(&joined(&sorted)));
    let key = format!("{}&", secret.expose());
    let mut mac = <Hmac<Sha1>>::new_from_slice(key.as_bytes()).expect("any key length");
    mac.update(text.as_bytes());
    BASE64_STANDARD.encode(mac.finalize().into_bytes())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StsReply {
    request_id: Option<String>,
    credentials: Option<StsCredentials>,
    code: Option<String>,
    message: Option<String>,
}

/// Shared with the metadata service, which writes the same names.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct StsCredentials {
    access_key_id: String,
    access_key_secret: String,
    security_token: String,
    expiration: String,
}

impl StsCredentials {
    pub(super) fn into_credentials(self, source: &'static str) -> Result<Credentials, Error> {
        let expires = Utc::parse_iso(&self.expiration).ok_or_else(|| {
            Error::new(
                source,
                FailureCause::Unusable,
                format!("unreadable expiration {:?} in the reply", quote(&self.expiration, NAME_MAX)),
            )
        })?;
        let texts = (&*self.access_key_id, &*self.access_key_secret, Some(&*self.security_token));
        Credentials::new(source, texts, Some(expires.0))
    }
}

fn read_reply(source: &'static str, status: u16, body: &[u8], secrets: &[&str]) -> Result<Obtained, Error> {
    // serde's own message could quote a key.
    let reply: StsReply = serde_json::from_slice(body).map_err(|_| {
        Error::new(source, FailureCause::Unusable, format!("STS answered {status} with something that is not its JSON"))
    })?;
    let request_id = reply.request_id.map(|id| told(&id, NAME_MAX, secrets));
    match reply.credentials {
        Some(keys) if status == 200 => Ok(Obtained { credentials: keys.into_credentials(source)?, request_id }),
        _ => {
            let code = told(reply.code.as_deref().unwrap_or("no code"), NAME_MAX, secrets);
            let message = told(&reply.message.unwrap_or_default(), MESSAGE_MAX, secrets);
            let what = format!("STS answered {status} {code}: {message}");
            Err(Error { source, cause: FailureCause::Refused, what, request_id })
        }
    }
}

/// A message as it may be shown: a wrong signature is answered with the string to sign, which holds
/// the security token of temporary keys.
fn told(message: &str, most: usize, secrets: &[&str]) -> String {
    let end = message.to_ascii_lowercase().find("string to sign").unwrap_or(message.len());
    let hide = |text: String, secret: &&str| text.replace(secret, "[hidden]");
    quote(&secrets.iter().fold(message[..end].to_owned(), hide), most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_of_what_was_signed_is_not_told() {
        let message = "Specified signature is not matched with our calculation. server string to sign is:POST&%2F&\
            AccessKeyId%3DSTS.x%26SecurityToken%3DCAIS%252Bsecret";
        let body = serde_json::json!({ "Code": "SignatureDoesNotMatch", "Message": message, "RequestId": "R-1" });
        let error = read_reply("test", 400, body.to_string().as_bytes(), &[]).unwrap_err().to_string();
        assert!(error.contains("not matched") && !error.contains("CAIS"), "{error}");
    }

    #[test]
    fn a_stranger_in_the_place_of_sts_neither_fills_a_log_nor_drives_a_terminal_nor_tells_a_token() {
        let long = format!("\u{1b}[2J eyJ.oidc {}", "x".repeat(1 << 20));
        let body = serde_json::json!({ "Code": long, "Message": long, "RequestId": long });
        let error = read_reply("RRSA", 400, body.to_string().as_bytes(), &["eyJ.oidc"]).unwrap_err().to_string();
        assert!(!error.contains('\u{1b}') && !error.contains("oidc") && error.len() < 1000, "{error}");
        let keys =
            serde_json::json!({ "AccessKeyId": "i", "AccessKeySecret": "s", "SecurityToken": "t", "Expiration": long });
        let body = serde_json::json!({ "Credentials": keys });
        let error = read_reply("RRSA", 200, body.to_string().as_bytes(), &[]).unwrap_err().to_string();
        assert!(error.len() < 1000, "{}", error.len());
    }

    /// Computed with the official Python helper of alibabacloud-credentials 1.0.12.
    #[test]
    fn assume_role_signature_vectors() {
        let parameters: Parameters = [
            ("Action", "AssumeRole"),
            ("Format", "JSON"),
            ("Version", "2015-04-01"),
            ("DurationSeconds", "3600"),
            ("RoleArn", "acs:ram::1234567890123456:role/tail-collector"),
            ("RoleSessionName", "tail-collector"),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureVersion", "1.0"),
            ("Timestamp", "2026-11-23T10:00:00Z"),
            ("SignatureNonce", "9166ab59-f445-4005-911d-664c1570df0f"),
            ("AccessKeyId", "testAccessKeyId"),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .to_vec();
        let secret = Secret::new("testAccessKeySecret");
        assert_eq!(sign("GET", parameters.iter(), &secret), "ss12l3CAkmt3kQuwVqc2LTEXZk8=");
        assert_eq!(sign("POST", parameters.iter(), &secret), "Up/UVUkp/aulsOzBCkFkaiX+Tf0=");
    }

    #[test]
    fn replies_of_sts() {
        let good = br#"{"RequestId":"R-1","AssumedRoleUser":{},"Credentials":{"AccessKeyId":"STS.x",
            "AccessKeySecret":"s","SecurityToken":"t","Expiration":"2026-11-23T10:00:00Z"}}"#;
        let obtained = read_reply("RRSA", 200, good, &[]).unwrap();
        assert_eq!(obtained.credentials.expires, Some(1_795_428_000));
        assert_eq!(obtained.request_id.as_deref(), Some("R-1"));

        let refused = br#"{"RequestId":"R-2","Code":"AuthenticationFail.OIDCToken.Expired","Message":"too old"}"#;
        let error = read_reply("RRSA", 400, refused, &[]).unwrap_err().to_string();
        assert_eq!(error, "RRSA: STS answered 400 AuthenticationFail.OIDCToken.Expired: too old (request id R-2)");

        let error = read_reply("RRSA", 502, b"<html>", &[]).unwrap_err().to_string();
        assert_eq!(error, "RRSA: STS answered 502 with something that is not its JSON");
    }

    #[test]
    fn a_broken_reply_never_quotes_its_keys() {
        let broken = br#"{"Credentials":{"AccessKeyId":"i","AccessKeySecret":"swordfish","SecurityToken":7}}"#;
        let error = read_reply("RRSA", 200, broken, &[]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("swordfish"));
    }
}
