use super::{reply::*, *};
use crate::http_client::Response;
use crate::otlp::status::{ProtoDuration, RetryInfo, RpcStatus};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use http::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use prost::Message;
use std::time::Duration;

fn http(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> ExportReply {
    let response = response(status, headers, body);
    ExportReply::read(Protocol::Http, &response, SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 30))
}

fn response(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Response {
    let pairs = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
    Response {
        status: StatusCode::from_u16(status).unwrap(),
        headers: pairs.collect(),
        body: Bytes::copy_from_slice(body),
        trailers: HeaderMap::new(),
        cut: None,
    }
}

fn grpc(code: u32, message: &'static str, delay: Option<(i64, i32)>) -> ExportReply {
    let retry =
        delay.map(|(seconds, nanos)| RetryInfo { retry_delay: Some(ProtoDuration { seconds, nanos }) }.to_any());
    let details = RpcStatus { code: code as i32, message: message.to_owned(), details: retry.into_iter().collect() };
    let details = STANDARD_NO_PAD.encode(details.encode_to_vec());
    let code = code.to_string();
    let headers = [("grpc-status", code.as_str()), ("grpc-message", message), ("grpc-status-details-bin", &details)];
    ExportReply::read(Protocol::Grpc, &response(200, &headers, b""), SystemTime::UNIX_EPOCH)
}

fn kind(reply: &ExportReply) -> &'static str {
    match reply {
        ExportReply::Taken { .. } => "taken",
        ExportReply::Retry { .. } => "retry",
        ExportReply::TooLarge { .. } => "split",
        ExportReply::Denied { .. } => "denied",
        ExportReply::Refused { .. } => "refused",
    }
}

/// What is said of the data is final; what heals by itself waits as long as it takes; all else waits as
/// long as the configuration says.
#[test]
fn every_http_status_has_a_meaning() {
    for status in 200..=999 {
        let expected = match status {
            200..=299 => "taken",
            400 | 422 => "refused",
            413 => "split",
            408 | 425 | 429 | 499 | 502 | 503 | 504 | 507 | 520..=530 => "retry",
            _ => "denied",
        };
        assert_eq!(kind(&http(status, &[], b"")), expected, "{status}");
        // Who answers without a gRPC status has not read the data.
        let expected = match status {
            413 => "split",
            408 | 425 | 429 | 499 | 502 | 503 | 504 | 507 | 520..=530 => "retry",
            _ => "denied",
        };
        let by_proxy = response(status, &[("content-type", "text/html")], b"<html>");
        assert_eq!(
            kind(&ExportReply::read(Protocol::Grpc, &by_proxy, SystemTime::UNIX_EPOCH)),
            expected,
            "gRPC: {status}"
        );
    }
}

#[test]
fn every_grpc_code_has_a_meaning() {
    // Those behind 16 are not known to anybody yet.
    for code in 1..20 {
        let expected = match code {
            3 | 6 => "refused",
            1 | 4 | 10 | 14 => "retry",
            _ => "denied",
        };
        assert_eq!(kind(&grpc(code, "because", None)), expected, "{code}");
    }
    let after = |reply| match reply {
        ExportReply::Retry { after, .. } => after,
        other => panic!("{other:?}"),
    };
    assert_eq!(after(grpc(8, "slow down", Some((3, 500_000_000)))), Some(Duration::from_millis(3500)));
    assert_eq!(after(grpc(14, "busy", Some((0, 0)))), Some(Duration::ZERO));
    assert_eq!(after(grpc(14, "busy", Some((-1, 0)))), None);
    for message in [
        "grpc: received message larger than max (5000000 vs. 4194304)",
        "gRPC message exceeds maximum size 4194304: 5000000",
        "Error, decoded message length too large: found 5000000 bytes, the limit is: 4194304 bytes",
    ] {
        assert_eq!(kind(&grpc(if message.starts_with("Error") { 11 } else { 8 }, message, None)), "split");
    }
}

#[test]
fn an_answer_that_breaks_off_is_what_its_status_says() {
    let read = |protocol, status, content_type: &str, grpc_status: Option<&'static str>| {
        let mut response = response(status, &[("content-type", content_type)], b"\x0a\xff");
        response.cut = Some(ClientError::TooLong { limit: 1 });
        if let Some(code) = grpc_status {
            response.trailers.insert("grpc-status", HeaderValue::from_static(code));
        }
        kind(&ExportReply::read(protocol, &response, SystemTime::UNIX_EPOCH))
    };
    assert_eq!(read(Protocol::Http, 200, "text/html", None), "taken");
    assert_eq!(read(Protocol::Http, 503, "text/html", None), "retry");
    // There the status comes last.
    assert_eq!(read(Protocol::Grpc, 200, "application/grpc+proto", None), "retry");
    assert_eq!(read(Protocol::Grpc, 200, "application/grpc", Some("0")), "taken");
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let after = |text| match http(503, &[("retry-after", text)], b"") {
        ExportReply::Retry { after, .. } => after,
        other => panic!("{other:?}"),
    };
    assert_eq!(after("7"), Some(Duration::from_secs(7)));
    assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(30)));
    assert_eq!(after("Sun, 06 Nov 1993 08:49:37 GMT"), Some(Duration::ZERO), "it has passed");
    assert_eq!(after("soon"), None);
    assert_eq!(after("Thu, 99 Foo 2020"), None);
}

#[test]
fn partial_success_is_counted() {
    let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "too\nold".to_owned() };
    let body = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    let expected = ExportReply::Taken { rejected: 3, message: "too\nold".to_owned() };
    assert_eq!(http(200, &[], &body), expected);
    assert_eq!(kind(&http(200, &[], b"{\"partialSuccess\":{}}")), "taken");

    let framed = [&[0, 0, 0, 0, body.len() as u8][..], &body].concat();
    let mut ok = response(200, &[], &framed);
    ok.trailers.insert("grpc-status", HeaderValue::from_static("0"));
    assert_eq!(ExportReply::read(Protocol::Grpc, &ok, SystemTime::UNIX_EPOCH), expected);
}

#[test]
fn what_a_peer_repeats_of_our_secrets_is_hidden() {
    let status = RpcStatus {
        message: "no such token: t0k3n-value in /adapt_tokenT0/api: tokenT0".to_owned(),
        ..Default::default()
    };
    let reply = http(401, &[("content-type", "application/x-protobuf")], &status.encode_to_vec());
    let ExportReply::Denied { reason, .. } = reply else { panic!("{reply:?}") };
    assert!(reason.starts_with("HTTP 401: no such token"), "{reason}");

    let mut headers = HeaderMap::new();
    headers.insert("authentication", HeaderValue::from_static("t0k3n-value"));
    let urls = [Some(Uri::from_static("http://arms.test:8090/adapt_tokenT0/api")), None, None];
    let settings = ExporterSettings {
        protocol: Protocol::Http,
        urls: urls.clone(),
        headers: headers.into(),
        compression: Compression::None,
        client: ClientSettings::default(),
        hops: None,
    };
    assert!(!format!("{settings:?}").contains("t0k3n"));
    let exporter = Exporter::new(settings).unwrap();
    let (headers, url) = (exporter.headers.get(), urls[0].as_ref().unwrap());
    let secrets = Secrets { headers: &headers, url };
    let outcome = exporter.conclude(ExportReply::Denied { after: None, reason }, None, &secrets);
    let hidden = "http://arms.test:8090: HTTP 401: no such token: [hidden] in [hidden]: [hidden]".to_owned();
    assert_eq!(outcome, Err(SendError::Denied { after: None, reason: hidden }));
}

#[test]
fn what_a_peer_says_is_short_and_clean_and_holds_no_part_of_a_secret() {
    let url = Uri::from_static("http://peer.test:4318/v1/traces");
    let settings = ExporterSettings {
        protocol: Protocol::Http,
        urls: [Some(url.clone()), None, None],
        headers: HeaderMap::from_iter([(http::header::AUTHORIZATION, HeaderValue::from_static("Bearer sw0rdfish"))])
            .into(),
        compression: Compression::None,
        client: ClientSettings::default(),
        hops: None,
    };
    let exporter = Exporter::new(settings).unwrap();
    // The token crosses the end of what is shown.
    let reason = format!("\u{1b}[2J Bearer? {}sw0rdfish{}", "x".repeat(280), "y".repeat(1 << 20));
    let id = format!("sw0rdfish{}", "z".repeat(1 << 20));
    let headers = exporter.headers.get();
    let outcome =
        exporter.conclude(ExportReply::Refused { reason }, Some(id), &Secrets { headers: &headers, url: &url });
    let Err(SendError::Refused { reason }) = outcome else { panic!("{outcome:?}") };
    assert!(!reason.contains("sw0rd") && !reason.contains('\u{1b}') && reason.len() < 500, "{reason}");
    assert!(reason.contains("Bearer?"), "the scheme is no secret: {reason}");
}

#[test]
fn a_whole_url_is_no_endpoint() {
    for signal in ["traces", "metrics", "logs"] {
        let error = http_urls(&format!("http://h.test:4318/otlp/v1/{signal}"), &[None, None, None]).unwrap_err();
        assert!(error.contains(&format!("`/v1/{signal}`")) && error.contains("`urls:"), "{error}");
    }
}

#[test]
fn urls_are_derived_or_taken_verbatim() {
    let shown = |urls: [Uri; 3]| urls.map(|url| url.to_string());
    let grpc = shown(grpc_urls("https://gateway.test:4317").unwrap());
    assert_eq!(grpc[0], "https://gateway.test:4317/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    assert_eq!(grpc[1], "https://gateway.test:4317/opentelemetry.proto.collector.metrics.v1.MetricsService/Export");
    assert_eq!(grpc[2], "https://gateway.test:4317/opentelemetry.proto.collector.logs.v1.LogsService/Export");

    let given = [None, Some("http://other.test/api/metrics?key=1".to_owned()), None];
    let http = shown(http_urls("http://gateway.test/base/", &given).unwrap());
    assert_eq!(http[0], "http://gateway.test/base/v1/traces");
    assert_eq!(http[1], "http://other.test/api/metrics?key=1");

    for (wrong, help) in [
        ("gateway.test:4317", "http://HOST:PORT"),
        ("ftp://gateway.test", "http://HOST:PORT"),
        ("http://user:secret@gateway.test", "headers"),
        ("http://gateway.test/path", "no path"),
    ] {
        let error = grpc_urls(wrong).unwrap_err();
        assert!(error.contains(help) && !error.contains("secret"), "{wrong}: {error}");
    }
    assert!(http_urls("http://gateway.test/?token=secret", &given).unwrap_err().contains("whole URL of traces"));
}

#[test]
fn packed_bodies_can_be_read_again() {
    let body = b"span ".repeat(100);
    let plain = pack(Protocol::Grpc, Compression::None, &body).unwrap();
    assert_eq!(plain[..5], [0, 0, 0, 1, 244]);
    assert_eq!(plain[5..], body);
    let gzip = pack(Protocol::Grpc, Compression::Gzip, &body).unwrap();
    assert_eq!((gzip[0], u32::from_be_bytes(gzip[1..5].try_into().unwrap()) as usize), (1, gzip.len() - 5));
    let mut read = Vec::new();
    io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&gzip[5..]), &mut read).unwrap();
    assert_eq!(read, body);
    assert_eq!(zstd::decode_all(&pack(Protocol::Http, Compression::Zstd, &body).unwrap()[..]).unwrap(), body);
}
