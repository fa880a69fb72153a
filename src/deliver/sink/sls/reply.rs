//! What Log Service's refusals mean.
//!
//! Source: help page "Error codes" and what the official clients do with them. The body is
//! `{"errorCode":…,"errorMessage":…}`; anything else, such as a proxy's page, counts by its status.

use crate::{identity::Secret, terminal::quote};
use http::HeaderMap;
use serde::Deserialize;
use std::{fmt, time::Duration};

/// Characters shown of a message, and of a code or id.
const MESSAGE_MAX: usize = 300;
pub(super) const NAME_MAX: usize = 100;

/// What to do about a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RefusalAction {
    /// Trouble on their side or on the way.
    Retry,
    /// A quota is used up; the delay doubles with every further refusal.
    SlowDown {
        first: Duration,
        scope: QuotaScope,
    },
    /// The keys are unknown, expired or lack a permission: take new ones at once, then retry slowly.
    RenewKeys,
    /// A wrong secret, something that changes requests on the way, or an answer by somebody else: somebody
    /// may mend it, but not for ever.
    Doubt,
    /// The clock is off: take theirs and try again at once.
    SetClock,
    /// Project or store is missing: somebody has to create it.
    WaitForStore,
    Split,
    Drop,
}

/// Whose quota is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum QuotaScope {
    Store,
    /// All stores of the project share it.
    Project,
}

/// A reply that is not a success.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SlsRefusal {
    pub(super) action: RefusalAction,
    status: u16,
    code: String,
    message: String,
    /// The service's own name of this request, for a support ticket.
    pub(super) request_id: String,
    /// Its `Date`.
    pub(super) date: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorBody {
    error_code: String,
    #[serde(default)]
    error_message: String,
}

impl SlsRefusal {
    pub(super) fn new(status: u16, headers: &HeaderMap, body: &[u8]) -> SlsRefusal {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body: Option<ErrorBody> = serde_json::from_slice(body).ok();
        let code = body.as_ref().map_or("", |body| body.error_code.as_str());
        let message = body.as_ref().map_or("", |body| body.error_message.as_str());
        SlsRefusal {
            action: action(status, code),
            status,
            code: code.to_owned(),
            message: message.to_owned(),
            request_id: header("x-log-requestid").unwrap_or_else(|| "none".to_owned()),
            date: header("date"),
        }
    }

    /// Shows nothing of what a reply may quote: it is part of what was signed.
    pub(super) fn hide(&mut self, secret: &Secret) {
        if !secret.is_empty() {
            for text in [&mut self.code, &mut self.message, &mut self.request_id] {
                *text = text.replace(secret.expose(), "[hidden]");
            }
        }
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }
}

impl fmt::Display for SlsRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = if self.code.is_empty() { "without an error code" } else { &self.code };
        write!(f, "log service answered {} {}", self.status, quote(code, NAME_MAX))?;
        if !self.message.is_empty() {
            write!(f, ": {}", quote(&self.message, MESSAGE_MAX))?;
        }
        write!(f, " (request id {})", quote(&self.request_id, NAME_MAX))
    }
}

fn action(status: u16, code: &str) -> RefusalAction {
    const SECOND: Duration = Duration::from_secs(1);
    match code {
        "WriteQuotaExceed" => RefusalAction::SlowDown { first: SECOND, scope: QuotaScope::Project },
        "ShardWriteQuotaExceed" => RefusalAction::SlowDown { first: SECOND, scope: QuotaScope::Store },
        "ExceedQuota" | "ProjectQuotaExceed" => {
            RefusalAction::SlowDown { first: 30 * SECOND, scope: QuotaScope::Project }
        }
        "InternalServerError" | "ServerBusy" | "RequestTimeout" => RefusalAction::Retry,
        "SignatureNotMatch" => RefusalAction::Doubt,
        "Unauthorized" | "InvalidAccessKeyId" | "SecurityToken.Expired" | "SecurityTokenExpired" => {
            RefusalAction::RenewKeys
        }
        "RequestTimeTooSkewed" | "RequestTimeExpired" => RefusalAction::SetClock,
        "ProjectNotExist" | "ProjectNotExists" | "LogStoreNotExist" => RefusalAction::WaitForStore,
        "PostBodyTooLarge" => RefusalAction::Split,
        // An unknown code: it has read what we sent.
        _ if !code.is_empty() && matches!(status, 405 | 406 | 411 | 414 | 415 | 431) => RefusalAction::Drop,
        _ => action_by_status(status),
    }
}

/// For codes that are unknown or absent.
fn action_by_status(status: u16) -> RefusalAction {
    match status {
        401 => RefusalAction::RenewKeys,
        404 => RefusalAction::WaitForStore,
        413 => RefusalAction::Split,
        400 | 422 => RefusalAction::Drop,
        // 403 without a known code is a policy or a proxy: data must not be lost while somebody looks.
        403 => RefusalAction::SlowDown { first: Duration::from_secs(30), scope: QuotaScope::Store },
        429 => RefusalAction::SlowDown { first: Duration::from_secs(1), scope: QuotaScope::Store },
        408 | 425 | 499 | 500.. => RefusalAction::Retry,
        _ => RefusalAction::Doubt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str) -> RefusalAction {
        let body = format!(r#"{{"errorCode":"{code}","errorMessage":"why"}}"#);
        SlsRefusal::new(status, &HeaderMap::new(), body.as_bytes()).action
    }

    #[test]
    fn every_row_of_the_error_table() {
        let slow = |seconds, scope| RefusalAction::SlowDown { first: Duration::from_secs(seconds), scope };
        for (status, code, action) in [
            (403, "WriteQuotaExceed", slow(1, QuotaScope::Project)),
            (403, "ShardWriteQuotaExceed", slow(1, QuotaScope::Store)),
            (403, "ExceedQuota", slow(30, QuotaScope::Project)),
            (403, "ProjectQuotaExceed", slow(30, QuotaScope::Project)),
            (403, "SomethingNew", slow(30, QuotaScope::Store)),
            (429, "SomethingNew", slow(1, QuotaScope::Store)),
            (500, "InternalServerError", RefusalAction::Retry),
            (503, "ServerBusy", RefusalAction::Retry),
            (400, "RequestTimeout", RefusalAction::Retry),
            (401, "Unauthorized", RefusalAction::RenewKeys),
            (401, "InvalidAccessKeyId", RefusalAction::RenewKeys),
            (401, "SecurityToken.Expired", RefusalAction::RenewKeys),
            (401, "SecurityTokenExpired", RefusalAction::RenewKeys),
            (401, "SignatureNotMatch", RefusalAction::Doubt),
            (400, "RequestTimeTooSkewed", RefusalAction::SetClock),
            (400, "RequestTimeExpired", RefusalAction::SetClock),
            (404, "ProjectNotExist", RefusalAction::WaitForStore),
            (404, "ProjectNotExists", RefusalAction::WaitForStore),
            (404, "LogStoreNotExist", RefusalAction::WaitForStore),
            (400, "PostBodyTooLarge", RefusalAction::Split),
            (400, "PostBodyInvalid", RefusalAction::Drop),
            (400, "InvalidTimestamp", RefusalAction::Drop),
            (400, "InvalidEncoding", RefusalAction::Drop),
            (400, "InvalidKey", RefusalAction::Drop),
            (400, "PostBodyUncompressError", RefusalAction::Drop),
            (400, "ParameterInvalid", RefusalAction::Drop),
            (400, "InvalidCompressType", RefusalAction::Drop),
            (400, "MissingBodyRawSize", RefusalAction::Drop),
            (400, "InvalidBodyRawSize", RefusalAction::Drop),
            (415, "InvalidContentType", RefusalAction::Drop),
            (411, "MissingContentLength", RefusalAction::Drop),
            (401, "SomethingNew", RefusalAction::RenewKeys),
            (418, "SomethingNew", RefusalAction::Doubt),
        ] {
            assert_eq!(answer(status, code), action, "{status} {code}");
        }
    }

    /// Nothing that may heal is dropped, and nothing that may not is tried for ever.
    #[test]
    fn every_status_without_a_code_has_an_action() {
        let slow = |seconds| RefusalAction::SlowDown { first: Duration::from_secs(seconds), scope: QuotaScope::Store };
        for status in 300..=999 {
            let expected = match status {
                400 | 422 => RefusalAction::Drop,
                401 => RefusalAction::RenewKeys,
                403 => slow(30),
                404 => RefusalAction::WaitForStore,
                413 => RefusalAction::Split,
                429 => slow(1),
                408 | 425 | 499 | 500..=999 => RefusalAction::Retry,
                _ => RefusalAction::Doubt,
            };
            assert_eq!(SlsRefusal::new(status, &HeaderMap::new(), b"").action, expected, "{status}");
        }
    }

    #[test]
    fn a_page_of_a_proxy_counts_by_its_status() {
        let truncated = br#"{"errorCode":"PostBodyTooLa"#;
        for body in [&b"<html>502 Bad Gateway</html>"[..], b"", truncated, b"[]"] {
            let answer = |status| SlsRefusal::new(status, &HeaderMap::new(), body).action;
            for status in [500, 502, 503, 504] {
                assert_eq!(answer(status), RefusalAction::Retry);
            }
            assert_eq!(answer(400), RefusalAction::Drop);
            assert_eq!(answer(413), RefusalAction::Split);
            assert_eq!(answer(404), RefusalAction::WaitForStore);
        }
    }

    #[test]
    fn what_a_stranger_answers_neither_fills_a_log_nor_drives_a_terminal_nor_tells_a_secret() {
        let long = "9".repeat(200_000);
        let mut headers = HeaderMap::new();
        headers.insert("x-log-requestid", format!("CAIS/token{long}").parse().unwrap());
        let body = format!(
            r#"{{"errorCode":"\u001b]0;CAIS/token{long}","errorMessage":"{}CAIS/token\u001b[2J"}}"#,
            &long[..295]
        );
        let mut refusal = SlsRefusal::new(500, &headers, body.as_bytes());
        refusal.hide(&Secret::new("CAIS/token"));
        let text = refusal.to_string();
        assert!(!text.contains('\u{1b}') && !text.contains("CAIS") && text.len() < 800, "{text}");
    }

    #[test]
    fn a_refusal_names_its_request() {
        let mut headers = HeaderMap::new();
        headers.insert("x-log-requestid", "5F2A".parse().unwrap());
        let body = br#"{"errorCode":"LogStoreNotExist","errorMessage":"logstore otel does not exist"}"#;
        let text = SlsRefusal::new(404, &headers, body).to_string();
        assert_eq!(text, "log service answered 404 LogStoreNotExist: logstore otel does not exist (request id 5F2A)");
        let text = SlsRefusal::new(502, &HeaderMap::new(), b"<html>").to_string();
        assert_eq!(text, "log service answered 502 without an error code (request id none)");
    }
}
