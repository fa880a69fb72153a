//! Who we are to Alibaba Cloud: keys that are given, or obtained and rotated.
//!
//! Explicit settings come first. `auto` takes the environment, then RRSA, then the ECS role, and
//! the first that is *set* answers: a half-set source is an error at start, never a reason to go on
//! to the next, which on a Kubernetes node would be the node's own role.
//! Source of the order, names and protocols: `aliyun/credentials-go`, `credentials/providers`.

mod cache;
mod clock;
mod metadata;
mod source;
mod sts;
mod utc;

pub use crate::secret::Secret;
pub use cache::{EnvironmentLookup, Identity, World};
pub use clock::ClockOffset;
pub use metadata::EcsRole;
pub use sts::{AssumeRole, Rrsa};
pub use utc::Utc;

use std::{fmt, fmt::Write, future::Future, path::PathBuf, pin::Pin};

/// An access key, for ever or until it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Not a secret; logs may name it.
    pub id: String,
    pub secret: Secret,
    /// Belongs to temporary keys and must be sent with them.
    pub token: Option<Secret>,
    /// Unix seconds by our own clock; none for keys that do not expire.
    pub expires: Option<u64>,
}

impl Credentials {
    /// Blanks around the texts are cut off: keys in mounted files often end with a newline.
    fn new(
        source: &'static str,
        (id, secret, token): (&str, &str, Option<&str>),
        expires: Option<u64>,
    ) -> Result<Credentials, Error> {
        // A header carries both, and a log the id: those of Alibaba Cloud are far shorter.
        for (name, text, most) in [("access key id", id, 128), ("security token", token.unwrap_or("none"), 16 << 10)] {
            let text = text.trim();
            if text.is_empty() || text.len() > most || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                let what = format!("the {name} is empty, too long, or has characters that no key has");
                return Err(Error::new(source, FailureCause::Unusable, what));
            }
        }
        let token = token.map(|token| Secret::new(token.trim()));
        Ok(Credentials { id: id.trim().to_owned(), secret: Secret::new(secret.trim()), token, expires })
    }
}

/// `auth` of a sink.
#[derive(Clone, Debug, Default)]
pub struct IdentitySettings {
    pub source: Source,
    pub endpoints: Endpoints,
}

/// `auth.type`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Environment, RRSA or ECS role: the first that is set.
    #[default]
    Auto,
    /// Keys from the configuration.
    Keys { id: String, secret: Secret, token: Option<Secret> },
    /// `ALIBABA_CLOUD_ACCESS_KEY_ID`, `_ACCESS_KEY_SECRET` and, for temporary keys, `_SECURITY_TOKEN`.
    Environment,
    /// The pod's service account, exchanged for temporary keys of a role. What is not given comes
    /// from the variables that ack-pod-identity-webhook injects.
    Rrsa(RrsaSettings),
    /// The role of the machine, from its metadata service.
    EcsRole(EcsRoleSettings),
    /// Another role, taken on with the keys of `base`.
    AssumeRole(AssumeRoleSettings),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RrsaSettings {
    /// Default `ALIBABA_CLOUD_ROLE_ARN`.
    pub role_arn: Option<String>,
    /// Default `ALIBABA_CLOUD_OIDC_PROVIDER_ARN`.
    pub provider_arn: Option<String>,
    /// Default `ALIBABA_CLOUD_OIDC_TOKEN_FILE`; read anew at every exchange, as the kubelet rotates it.
    pub token_file: Option<PathBuf>,
    /// Shows in the cloud's audit log. Default `ALIBABA_CLOUD_ROLE_SESSION_NAME`, else `tailkeep`.
    pub session_name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EcsRoleSettings {
    /// Default `ALIBABA_CLOUD_ECS_METADATA`, else the metadata service is asked.
    pub role: Option<String>,
    /// Refuse metadata without a session token (version 1). Also `ALIBABA_CLOUD_IMDSV1_DISABLED=true`.
    pub only_v2: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssumeRoleSettings {
    pub role_arn: String,
    /// Shows in the cloud's audit log. Default `tailkeep`.
    pub session_name: Option<String>,
    /// What the role's trust policy may ask for.
    pub external_id: Option<String>,
    /// Whose keys ask for the role; not another `AssumeRole`.
    pub base: Box<Source>,
}

/// Where keys are obtained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Default `sts.aliyuncs.com`, or the region's with `ALIBABA_CLOUD_STS_REGION`, or the VPC's with
    /// `ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED=true` as well. https unless it carries a scheme.
    pub sts: Option<String>,
    /// `HOST:PORT` to connect to in its place.
    pub sts_connect_to: Option<String>,
    /// Lifetime to ask STS for, in seconds: 900 to the role's own maximum.
    pub duration_seconds: u32,
    /// Base URL of the metadata service.
    pub metadata: String,
}

impl Default for Endpoints {
    fn default() -> Self {
        Endpoints {
            sts: None,
            sts_connect_to: None,
            duration_seconds: 3600,
            metadata: "http://100.100.100.200".to_owned(),
        }
    }
}

/// Why there are no keys. Its texts hold no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// `RRSA`, `ECS role`, …
    pub source: &'static str,
    pub cause: FailureCause,
    pub what: String,
    /// The service's own name of this call, for a support request.
    pub request_id: Option<String>,
}

/// What kind of failure it is: each has its own remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureCause {
    /// The configuration, the environment or a file that it names.
    Settings,
    /// No answer.
    Unreachable,
    /// An answer that says no.
    Refused,
    /// An answer that does not hold keys, though it should.
    Unusable,
}

impl Error {
    fn new(source: &'static str, cause: FailureCause, what: impl Into<String>) -> Error {
        Error { source, cause, what: what.into(), request_id: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.what)?;
        self.request_id.as_ref().map_or(Ok(()), |id| write!(f, " (request id {id})"))
    }
}

impl std::error::Error for Error {}

/// A way to obtain keys.
pub trait Obtain: Send + Sync {
    /// One attempt; the cache decides when.
    fn obtain(&self) -> Pin<Box<dyn Future<Output = Result<Obtained, Error>> + Send + '_>>;

    /// As reports name it.
    fn name(&self) -> &'static str;
}

/// Keys, and the id of the call that gave them.
#[derive(Clone, Debug)]
pub struct Obtained {
    pub credentials: Credentials,
    pub request_id: Option<String>,
}

/// Percent-encodes all but RFC 3986's unreserved characters, as both signatures want it.
pub fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_trimmed_and_must_fit_a_header() {
        let keys = Credentials::new("keys", ("id\n", " secret\n", Some("token+/=\n")), None).unwrap();
        assert_eq!((keys.id.as_str(), keys.secret.expose()), ("id", "secret"));
        assert_eq!(keys.token.unwrap().expose(), "token+/=");
        let long = "x".repeat(20_000);
        for (id, token) in [
            ("", None),
            ("a\nb", None),
            (long.as_str(), None),
            ("id", Some("t\u{fc}")),
            ("id", Some(" ")),
            ("id", Some(long.as_str())),
        ] {
            assert!(Credentials::new("keys", (id, "s", token), None).is_err());
        }
    }

    #[test]
    fn percent_encoding_as_the_sdks_do_it() {
        let want = "123abc%21%40%23%24%25%5E%26%2A%28%29-%3D_%2B%20~%7C%5C%2F";
        assert_eq!(super::percent_encode(r"123abc!@#$%^&*()-=_+ ~|\/"), want);
        assert_eq!(super::percent_encode("é"), "%C3%A9");
    }
}
