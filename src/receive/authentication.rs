//! Who may send, where `receive.auth` says it: whoever presents one of its credentials.

use super::refusal::Refusal;
use crate::secret::{Credential, SecretSource};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

/// What a sender may present in `Authorization`. What comes from a file may be renewed.
#[derive(Clone, Debug)]
pub enum SenderCredential {
    Bearer(SecretSource),
    /// RFC 7617.
    Basic {
        username: String,
        password: SecretSource,
    },
}

/// The credentials of all senders.
pub(super) struct Authentication {
    credentials: Vec<Credential>,
    /// What a refused sender may present, as `WWW-Authenticate` has it.
    challenges: Vec<HeaderValue>,
}

impl Authentication {
    pub fn new(known: &[SenderCredential]) -> Result<Authentication, String> {
        let credential = |known: &SenderCredential| match known {
            SenderCredential::Bearer(token) => Credential::bearer("receive.auth.bearer", token),
            SenderCredential::Basic { username, password } => {
                Credential::basic("receive.auth.basic", username, password)
            }
        };
        let credentials = known.iter().map(credential).collect::<Result<_, _>>()?;
        let has_bearer = known.iter().any(|known| matches!(known, SenderCredential::Bearer(_)));
        let has_basic = known.iter().any(|known| matches!(known, SenderCredential::Basic { .. }));
        let bearer = has_bearer.then_some(HeaderValue::from_static("Bearer"));
        let basic = has_basic.then_some(HeaderValue::from_static("Basic realm=\"tailkeep\", charset=\"UTF-8\""));
        Ok(Authentication { credentials, challenges: bearer.into_iter().chain(basic).collect() })
    }

    /// Refuses whoever presents none of the credentials, if there are any. All are compared, so that the time says
    /// nothing of which one was nearly right.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let presented = self.credentials.iter().filter(|credential| credential.is_in(headers)).count();
        if self.credentials.is_empty() || presented > 0 {
            return Ok(());
        }
        Err(Refusal::Unauthenticated { presented: headers.contains_key(AUTHORIZATION) })
    }

    pub fn challenges(&self) -> &[HeaderValue] {
        &self.challenges
    }
}
