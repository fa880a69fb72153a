//! What whoever asks must present.

use super::{Secret, SecretSource};
use crate::watched_files::{CHECK_EVERY, WatchedFiles};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use sha2::Sha256;
use std::sync::Arc;

/// One way to be let in: the value of `Authorization`. One that comes from a file follows it.
pub struct Credential {
    scheme: &'static str,
    expected: WatchedFiles<Arc<Digest>>,
}

impl Credential {
    /// `Authorization: Bearer …`. `setting` names it in the log.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub fn bearer(setting: &str, token: &SecretSource) -> Result<Credential, String> {
        Credential::follow(setting, "Bearer", token, |token| token.expose().to_owned())
    }

    /// `Authorization: Basic …`, RFC 7617.
    ///
    /// # Errors
    /// The file of its password cannot be read.
    pub fn basic(setting: &str, username: &str, password: &SecretSource) -> Result<Credential, String> {
        let username = username.to_owned();
        Credential::follow(setting, "Basic", password, move |password| {
            STANDARD.encode(format!("{username}:{}", password.expose()))
        })
    }

    fn follow(
        setting: &str,
        scheme: &'static str,
        source: &SecretSource,
        write: impl Fn(&Secret) -> String + Send + Sync + 'static,
    ) -> Result<Credential, String> {
        let (files, source) = (source.files(), source.clone());
        let read = move || source.read().map(|secret| Arc::new(Digest::of(&write(&secret))));
        let expected = WatchedFiles::start(setting, files, CHECK_EVERY, read)?;
        Ok(Credential { scheme, expected })
    }

    /// Whether a request presents it.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
        let Some((scheme, given)) = given.split_at_checked(self.scheme.len()) else { return false };
        let is_spaced = given.first() == Some(&b' ');
        is_spaced && scheme.eq_ignore_ascii_case(self.scheme.as_bytes()) && self.expected.get().is(given.trim_ascii())
    }
}

/// A text, known by its digest under itself: comparing two digests takes the same time whatever their first difference,
/// and says nothing of the text's length.
struct Digest {
    mac: Hmac<Sha256>,
    digest: [u8; 32],
}

impl Digest {
    fn of(text: &str) -> Digest {
        let mac = Hmac::<Sha256>::new_from_slice(text.as_bytes()).expect("keys may have any length");
        let digest = mac.clone().chain_update(text).finalize().into_bytes().into();
        Digest { mac, digest }
    }

    fn is(&self, given: &[u8]) -> bool {
        self.mac.clone().chain_update(given).verify_slice(&self.digest).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::FileText;
    use std::time::Duration;

    fn presents(credential: &Credential, value: &str) -> bool {
        credential.is_in(&HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())]))
    }

    fn given(text: &str) -> SecretSource {
        SecretSource { secret: Secret::new(text), file: None }
    }

    #[test]
    fn only_the_whole_value_of_its_scheme_lets_in() {
        let bearer = Credential::bearer("", &given("s3cret")).unwrap();
        // The example of RFC 7617.
        let basic = Credential::basic("", "Aladdin", &given("open sesame")).unwrap();
        for (value, is_bearer, is_basic) in [
            ("Bearer s3cret", true, false),
            ("bearer  s3cret ", true, false),
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", false, true),
            ("BASIC QWxhZGRpbjpvcGVuIHNlc2FtZQ==", false, true),
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ", false, false),
            ("Basic s3cret", false, false),
            ("Bearers3cret", false, false),
            ("Bearer s3cre", false, false),
            ("Bearer s3cret0", false, false),
            ("Bearer S3cret", false, false),
            ("Bearer ", false, false),
            ("Bearer", false, false),
            ("s3cret", false, false),
            ("", false, false),
        ] {
            assert_eq!((presents(&bearer, value), presents(&basic, value)), (is_bearer, is_basic), "{value:?}");
        }
        assert!(!bearer.is_in(&HeaderMap::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_file_is_the_new_credential() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "old\n").unwrap();
        let text = FileText { before: Secret::default(), file: file.clone(), after: Secret::default() };
        let source = SecretSource { secret: Secret::new("old"), file: Some(text) };
        let credential = Credential::bearer("admin.token", &source).unwrap();
        assert!(presents(&credential, "Bearer old"));
        std::fs::write(&file, "renewed\n").unwrap();
        tokio::time::advance(CHECK_EVERY + Duration::from_millis(1)).await;
        assert!(presents(&credential, "Bearer renewed") && !presents(&credential, "Bearer old"));
        std::fs::write(&file, "\n").unwrap();
        tokio::time::advance(CHECK_EVERY + Duration::from_millis(1)).await;
        assert!(presents(&credential, "Bearer renewed") && !presents(&credential, "Bearer "), "an empty file is none");
    }
}
