//! Lets pages of other origins send OTLP/HTTP, as far as `receive.cors` names them.
//!
//! Source: Fetch standard, "CORS protocol". Nothing here is read back, so what a named origin may do is the same with
//! and without credentials; `navigator.sendBeacon` sends them always. A preflight has none, whoever may send.

use super::context::Reply;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, RETRY_AFTER, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

/// How long a browser may remember a preflight's answer, in seconds. Browsers take no more than two hours.
const MAX_AGE: u32 = 7200;
/// Most bytes of an origin, and of the list of headers that a page wants to send.
const TEXT_MAX: usize = 1 << 10;

/// Whether a page's origin is among those of `receive.cors`. `*` stands for any text, once in an entry.
fn is_allowed(allowed: &[String], origin: &[u8]) -> bool {
    allowed.iter().any(|entry| match entry.split_once('*') {
        None => entry.as_bytes() == origin,
        Some((before, after)) => {
            origin.len() >= before.len() + after.len()
                && origin.starts_with(before.as_bytes())
                && origin.ends_with(after.as_bytes())
        }
    })
}

/// The origin of a request whose page may hear the answer.
pub(super) fn origin(allowed: &[String], headers: &HeaderMap) -> Option<HeaderValue> {
    if allowed.is_empty() {
        return None;
    }
    let origin = headers.get(ORIGIN)?.as_bytes();
    let is_allowed = origin.len() <= TEXT_MAX && is_allowed(allowed, origin);
    // A copy: the header itself may lie in a large block.
    is_allowed.then(|| HeaderValue::from_bytes(origin).ok()).flatten()
}

/// Whether a request asks what a page may send.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight: POST, with whatever headers the page wants to send.
pub(super) fn preflight(headers: &HeaderMap) -> Response<Reply> {
    let mut response = Response::new(Reply::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let wanted = headers.get(ACCESS_CONTROL_REQUEST_HEADERS).filter(|wanted| wanted.len() <= TEXT_MAX);
    let answer = response.headers_mut();
    answer.extend(wanted.map(|wanted| (ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone())));
    answer.extend([
        (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST")),
        (ACCESS_CONTROL_MAX_AGE, HeaderValue::from(MAX_AGE)),
    ]);
    response
}

/// Lets the page hear an answer.
pub(super) fn allow(response: &mut Response<Reply>, origin: HeaderValue) {
    response.headers_mut().extend([
        (ACCESS_CONTROL_ALLOW_ORIGIN, origin),
        (ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")),
        (ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from(RETRY_AFTER)),
        (VARY, HeaderValue::from(ORIGIN)),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_matched_whole_and_with_one_star() {
        let allowed = ["https://shop.example".to_owned(), "https://*.pages.example".to_owned()];
        let is_allowed = |origin: &str| is_allowed(&allowed, origin.as_bytes());
        for origin in ["https://shop.example", "https://a.pages.example", "https://a.b.pages.example"] {
            assert!(is_allowed(origin), "{origin}");
        }
        for origin in
            ["http://shop.example", "https://shop.example:8443", "https://shop.example.evil", "https://pages.example"]
        {
            assert!(!is_allowed(origin), "{origin}");
        }
        assert!(super::is_allowed(&["*".to_owned()], b"null"));
    }

    #[test]
    fn without_origins_nothing_is_allowed() {
        let headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static("https://shop.example"))]);
        assert_eq!(origin(&[], &headers), None);
    }
}
