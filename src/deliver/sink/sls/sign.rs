//! Request signatures V4 and V1 of Log Service.
//!
//! Source: the signers of the official Go, Java and Python SDKs, which agree (`signature_v4.go`,
//! `SlsV4Signer`, `auth.py`). The unit tests hold their vectors.

use crate::identity::{Credentials, Secret, Utc};
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Which signature a request carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SignatureVersion {
    /// HMAC-SHA1 over a few headers. It does not cover `Host`: within 15 minutes a recorded request
    /// can be replayed against another project's logstore of the same name.
    V1,
    /// HMAC-SHA256 over all that matters, with a key that is bound to day and region.
    #[default]
    V4,
}

/// A request before it is signed. Header names are lowercase.
pub struct UnsignedRequest<'a> {
    pub method: &'static str,
    /// As sent: project and logstore names need no escaping.
    pub path: &'a str,
    /// Names and values, not escaped.
    pub query: &'a [(&'a str, &'a str)],
    pub headers: Vec<(&'static str, String)>,
    /// As sent, that is compressed.
    pub body: &'a [u8],
}

impl UnsignedRequest<'_> {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| *n == name).map_or("", |(_, value)| value)
    }

    fn set(&mut self, name: &'static str, value: String) {
        self.headers.retain(|(n, _)| *n != name);
        self.headers.push((name, value));
    }

    /// Path and query as they stand in the request line.
    pub fn target(&self) -> String {
        let mut target = self.path.to_owned();
        for (index, (name, value)) in self.query.iter().enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            target.extend([encode(name), "=".into(), encode(value)]);
        }
        target
    }
}

/// Signs requests of one project. It remembers the day's key, which costs four HMACs to derive.
pub struct Signer {
    version: SignatureVersion,
    region: String,
    day: Option<DayKey>,
}

struct DayKey {
    day: String,
    secret: Secret,
    key: [u8; 32],
}

impl Signer {
    /// `region` is the region's id without `-intranet`; V1 does not use it.
    pub fn new(version: SignatureVersion, region: &str) -> Signer {
        Signer { version, region: region.to_owned(), day: None }
    }

    /// Adds the headers that belong to the signature, `authorization` last.
    pub fn sign(&mut self, message: &mut UnsignedRequest, credentials: &Credentials, now: Utc) {
        if let Some(token) = &credentials.token {
            message.set("x-acs-security-token", token.expose().to_owned());
        }
        let authorization = match self.version {
            SignatureVersion::V1 => sign_v1(message, credentials, now),
            SignatureVersion::V4 => self.sign_v4(message, credentials, now),
        };
        message.set("authorization", authorization);
    }

    fn sign_v4(&mut self, message: &mut UnsignedRequest, credentials: &Credentials, now: Utc) -> String {
        let date = now.compact();
        message.set("x-log-content-sha256", hex(&Sha256::digest(message.body)));
        message.set("x-log-date", date.clone());
        let day = &date[..8];
        let scope = format!("{day}/{}/sls/aliyun_v4_request", self.region);
        let hashed = hex(&Sha256::digest(canonical_v4(message)));
        let text = format!("SLS4-HMAC-SHA256\n{date}\n{scope}\n{hashed}");
        let signature = hex(&hmac_sha256(self.day_key(day, &credentials.secret), text.as_bytes()));
        // The blank after a comma that other clouds write is not allowed here.
        format!("SLS4-HMAC-SHA256 Credential={}/{scope},Signature={signature}", credentials.id)
    }

    fn day_key(&mut self, day: &str, secret: &Secret) -> &[u8; 32] {
        if !self.day.as_ref().is_some_and(|known| known.day == day && known.secret == *secret) {
            let first = format!("aliyun_v4{}", secret.expose());
            let key = [day, &self.region, "sls", "aliyun_v4_request"]
                .iter()
                .fold(first.into_bytes(), |key, text| hmac_sha256(&key, text.as_bytes()).to_vec());
            let key = key.try_into().expect("HMAC-SHA256 gives 32 bytes");
            self.day = Some(DayKey { day: day.to_owned(), secret: secret.clone(), key });
        }
        &self.day.as_ref().expect("just set").key
    }
}

fn sign_v1(message: &mut UnsignedRequest, credentials: &Credentials, now: Utc) -> String {
    sign_v1_with_date(message, credentials, &now.http())
}

fn sign_v1_with_date(message: &mut UnsignedRequest, credentials: &Credentials, date: &str) -> String {
    message.set("x-log-signaturemethod", "hmac-sha1".into());
    message.set("date", date.to_owned());
    if !message.body.is_empty() {
        message.set("content-md5", hex(&Md5::digest(message.body)).to_uppercase());
    }
    let mut text = format!(
        "{}\n{}\n{}\n{}\n",
        message.method,
        message.header("content-md5"),
        message.header("content-type"),
        message.header("date")
    );
    text += &canonical_headers(message, is_product_header).0;
    text += message.path;
    let mut query = message.query.to_vec();
    query.sort_unstable();
    for (index, (name, value)) in query.iter().enumerate() {
        let _ = write!(text, "{}{name}={value}", if index == 0 { '?' } else { '&' });
    }
    let mut mac = <Hmac<Sha1>>::new_from_slice(credentials.secret.expose().as_bytes()).expect("any key length");
    mac.update(text.as_bytes());
    format!("LOG {}:{}", credentials.id, BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

/// Headers of the product's own; V1 signs them all but `x-log-date`, which stands for `Date`.
fn is_product_header(name: &str) -> bool {
    (name.starts_with("x-log-") || name.starts_with("x-acs-")) && name != "x-log-date"
}

fn canonical_v4(message: &UnsignedRequest) -> String {
    let (headers, names) = canonical_headers(message, |name| {
        matches!(name, "content-type" | "host" | "x-log-date") || is_product_header(name)
    });
    let mut query = message.query.to_vec();
    query.sort_unstable();
    let query: Vec<String> = query
        .iter()
        // Names stay as they are and an empty value loses its `=`; both differ from V1.
        .map(|(name, value)| if value.is_empty() { name.to_string() } else { format!("{name}={}", encode(value)) })
        .collect();
    let hash = message.header("x-log-content-sha256");
    format!("{}\n{}\n{}\n{headers}\n{names}\n{hash}", message.method, message.path, query.join("&"))
}

/// The chosen headers, sorted, as `name:value\n` each, and their names joined by `;`.
fn canonical_headers(message: &UnsignedRequest, chosen: impl Fn(&str) -> bool) -> (String, String) {
    let mut headers: Vec<_> = message.headers.iter().filter(|(name, _)| chosen(name)).collect();
    headers.sort_unstable_by_key(|(name, _)| *name);
    let text = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
    (text, names.join(";"))
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn encode(text: &str) -> String {
    crate::identity::percent_encode(text)
}

fn hmac_sha256(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256>>::new_from_slice(key).expect("any key length");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
pub(super) mod tests;
