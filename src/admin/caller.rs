//! Who may ask the admin listener. A browser on this host reaches it too, for whatever page it shows.

use super::route::{AdminReply, text};
use crate::secret::Credential;
use http::uri::Authority;
use http::{HeaderValue, Request, StatusCode, header};
use std::net::IpAddr;

/// The answer to whoever may not ask.
pub(super) fn refusal<B>(request: &Request<B>, token: Option<&Credential>) -> Option<AdminReply> {
    if is_of_another_site(request) {
        return Some(text(StatusCode::FORBIDDEN, "pages of other sites may not ask this listener\n"));
    }
    match token {
        None if !is_for_this_host(request) => Some(text(
            StatusCode::FORBIDDEN,
            "this listener has no token, so it answers to the names localhost, 127.0.0.1 and [::1] only: \
             ask it by one of them, or set `admin.token`\n",
        )),
        Some(token) if !token.is_in(request.headers()) => {
            let mut reply = text(StatusCode::UNAUTHORIZED, "this listener wants `Authorization: Bearer TOKEN`\n");
            reply.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            Some(reply)
        }
        _ => None,
    }
}

/// A browser says which page asks: in `Origin`, in `Sec-Fetch-Site`, or both. Nobody else sends them.
fn is_of_another_site<B>(request: &Request<B>) -> bool {
    let hosts: Vec<&[u8]> = request.headers().get_all(header::HOST).iter().map(HeaderValue::as_bytes).collect();
    let is_ours = |origin: &HeaderValue| {
        let host = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host.as_bytes());
        host.is_some_and(|host| hosts.iter().any(|asked| asked.eq_ignore_ascii_case(host)))
    };
    let is_own = |site: &HeaderValue| matches!(site.as_bytes(), b"same-origin" | b"none");
    let headers = request.headers();
    !headers.get_all(header::ORIGIN).iter().all(is_ours) || !headers.get_all("sec-fetch-site").iter().all(is_own)
}

/// Whoever has his own name lead here by DNS (rebinding) has a page that is no other site to the browser, but it asks
/// by that name.
fn is_for_this_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter().map(HeaderValue::as_bytes).peekable();
    hosts.peek().is_some()
        && hosts.all(|host| Authority::try_from(host).is_ok_and(|host| is_loopback(&host)))
        && request.uri().authority().is_none_or(is_loopback)
}

fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
