//! The Log Service sink against a server that misbehaves in every way the error table knows.

mod loopback;

use bytes::Bytes;
use loopback::{Received, Reply, Server};
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point},
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tailkeep::{
    deliver::{
        Discard,
        sink::{
            Batch, SendError, SendResult, Sent, Sink,
            sls::{MetricsPath, PackCompression, SignatureVersion, Sls, SlsSettings},
        },
    },
    identity::{self, RrsaSettings, Secret, Source, World},
    trace::Signal,
};

/// 2026-11-23 10:00:00 UTC.
const NOW: u64 = 1_795_428_000_000;

#[derive(Clone, PartialEq, Message)]
struct LogGroup {
    #[prost(message, repeated, tag = "1")]
    logs: Vec<Log>,
    #[prost(message, repeated, tag = "6")]
    tags: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
struct Log {
    #[prost(uint32, required, tag = "1")]
    time: u32,
    #[prost(message, repeated, tag = "2")]
    contents: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, required, tag = "1")]
    key: String,
    #[prost(string, required, tag = "2")]
    value: String,
}

/// Unpacks a body by what its headers say of it.
fn group(request: &Received) -> LogGroup {
    let size: usize = request.header("x-log-bodyrawsize").parse().unwrap();
    let raw = match request.header("x-log-compresstype") {
        "lz4" => lz4_flex::block::decompress(&request.body, size).unwrap(),
        "zstd" => zstd::bulk::decompress(&request.body, size).unwrap(),
        "" => request.body.clone(),
        other => panic!("compression {other}"),
    };
    assert_eq!(raw.len(), size);
    LogGroup::decode(&raw[..]).unwrap()
}

fn names(request: &Received) -> Vec<String> {
    let name = |log: Log| log.contents.into_iter().find(|pair| pair.key == "name").unwrap().value;
    group(request).logs.into_iter().map(name).collect()
}

fn spans(count: usize) -> Batch {
    let spans = (0..count).map(|n| Span { name: format!("span{n}"), trace_id: vec![1; 16], ..Default::default() });
    let scope_spans = vec![ScopeSpans { spans: spans.collect(), ..Default::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..Default::default() }];
    let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
    Batch { signal: Signal::Traces, body: Bytes::from(body), items: count as u64 }
}

/// One data point.
fn sample() -> Batch {
    let point = NumberDataPoint { value: Some(number_data_point::Value::AsInt(7)), ..Default::default() };
    let data = Some(metric::Data::Gauge(Gauge { data_points: vec![point] }));
    let metrics = vec![Metric { name: "cart.size".into(), data, ..Default::default() }];
    let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..Default::default() }];
    let body = ExportMetricsServiceRequest { resource_metrics }.encode_to_vec();
    Batch { signal: Signal::Metrics, body: body.into(), items: 1 }
}

fn settings(server: &Server) -> SlsSettings {
    SlsSettings {
        endpoint: "http://cn-hangzhou.log.test".into(),
        connect_to: Some(server.address.to_string()),
        project: "demo".into(),
        traces: Some("spans".into()),
        metrics: Some("samples".into()),
        topic: Some("tail".into()),
        timeout: Duration::from_secs(5),
        auth: identity::IdentitySettings {
            source: Source::Keys { id: "id".into(), secret: Secret::new("secret"), token: None },
            ..Default::default()
        },
        ..Default::default()
    }
}

fn world(clock: &Arc<AtomicU64>) -> World {
    let clock = clock.clone();
    World {
        unix_millis: Arc::new(move || clock.load(Relaxed)),
        random: Arc::new(|| 0xfeed),
        variable: Arc::new(|_| None),
    }
}

fn sink(settings: SlsSettings) -> Sls {
    Sls::new(settings, world(&Arc::new(AtomicU64::new(NOW)))).unwrap()
}

fn ok() -> Reply {
    Reply::Answer(200, vec![("x-log-requestid", "OK-1".into())], String::new())
}

fn refusal(status: u16, code: &str) -> Reply {
    let body = format!(r#"{{"errorCode":"{code}","errorMessage":"because"}}"#);
    Reply::Answer(status, vec![("x-log-requestid", "REQ-9".into())], body)
}

/// Between two attempts.
const PATIENT: Duration = Duration::from_secs(30);

/// Time goes by at once; the network's time does not.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Items of parts that were refused as a whole.
fn refused(outcome: SendResult) -> u64 {
    let lost = outcome.expect("the batch is done with").lost;
    assert!(lost.iter().all(|lost| lost.why == Discard::Refused), "{lost:?}");
    lost.iter().map(|lost| lost.items).sum()
}

#[tokio::test]
async fn a_batch_is_one_signed_request() {
    let server = Server::start(|_, _| ok()).await;
    let mut sink = sink(settings(&server));
    assert_eq!(sink.send(&spans(3)).await, Ok(Sent::default()));
    let received = server.received();
    assert_eq!(received.len(), 1);
    let request = &received[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/logstores/spans/shards/lb"));
    assert_eq!(names(request), ["span0", "span1", "span2"]);
    for (name, value) in [
        ("host", "demo.cn-hangzhou.log.test"),
        ("content-type", "application/x-protobuf"),
        ("x-log-apiversion", "0.6.0"),
        ("x-log-compresstype", "lz4"),
        ("x-log-date", "20261123T100000Z"),
    ] {
        assert_eq!(request.header(name), value);
    }
    let authorization = request.header("authorization");
    assert!(authorization.starts_with("SLS4-HMAC-SHA256 Credential=id/20261123/cn-hangzhou/sls/aliyun_v4_request,"));
}

#[tokio::test]
async fn signatures_compressions_and_paths_are_choices() {
    let server = Server::start(|_, _| ok()).await;
    for (compression, name) in
        [(PackCompression::Zstd, "zstd"), (PackCompression::None, ""), (PackCompression::Lz4, "lz4")]
    {
        let mut settings = settings(&server);
        settings.compression = compression;
        settings.signature = SignatureVersion::V1;
        settings.shard_key = Some("collector-7".into());
        sink(settings).send(&spans(2)).await.unwrap();
        let request = server.received().pop().unwrap();
        assert_eq!(request.header("x-log-compresstype"), name);
        assert_eq!(names(&request).len(), 2);
        assert!(request.header("authorization").starts_with("LOG id:"));
        assert_eq!(request.header("date"), "Mon, 23 Nov 2026 10:00:00 GMT");
        assert_eq!(request.target, "/logstores/spans/shards/route?key=86f2808db0a4a5a0bd8a47e29e60add3");
    }
}

#[tokio::test]
async fn metrics_go_to_the_metricstore_by_either_path() {
    let server = Server::start(|_, _| ok()).await;
    let batch = sample();
    for (path, target) in [
        (MetricsPath::Logstore, "/logstores/samples/shards/lb"),
        (MetricsPath::Prometheus, "/prometheus/demo/samples/api/v1/write"),
    ] {
        let settings = SlsSettings { metrics_path: path, ..settings(&server) };
        sink(settings).send(&batch).await.unwrap();
        let request = server.received().pop().unwrap();
        assert_eq!(request.target, target);
        assert_eq!(group(&request).logs[0].contents[0].value, "cart_size");
    }
}

/// How much of the sink a refusal stops.
#[derive(Debug, PartialEq)]
enum Scope {
    Store,
    Project,
}

#[tokio::test]
async fn what_heals_is_retried_and_nothing_is_lost() {
    let second = Duration::from_secs(1);
    for (status, code, after, scope) in [
        (403, "WriteQuotaExceed", Some(second), Scope::Project),
        (403, "ShardWriteQuotaExceed", Some(second), Scope::Store),
        (403, "ExceedQuota", Some(30 * second), Scope::Project),
        (403, "ProjectQuotaExceed", Some(30 * second), Scope::Project),
        (500, "InternalServerError", None, Scope::Store),
        (503, "ServerBusy", None, Scope::Store),
        (401, "Unauthorized", Some(30 * second), Scope::Store),
        (401, "SignatureNotMatch", Some(30 * second), Scope::Store),
        (404, "ProjectNotExist", Some(30 * second), Scope::Store),
        (404, "LogStoreNotExist", Some(30 * second), Scope::Store),
    ] {
        let server = Server::start(move |n, _| if n == 0 { refusal(status, code) } else { ok() }).await;
        let mut sink = sink(settings(&server));
        let batch = spans(2);
        match sink.send(&batch).await {
            Err(SendError::Retry { after: told, reason }) => {
                assert_eq!((told, Scope::Store), (after, scope), "{code}");
                assert!(reason.contains(code) && reason.contains("REQ-9"), "{reason}");
            }
            Err(SendError::Pause { after: told, reason }) => {
                assert_eq!((Some(told), Scope::Project), (after, scope), "{code}");
                assert!(reason.contains(code) && reason.contains("REQ-9"), "{reason}");
            }
            other => panic!("{code}: {other:?}"),
        }
        assert_eq!(sink.send(&batch).await, Ok(Sent::default()), "{code}");
        assert_eq!(server.received().len(), 2, "{code}");
    }
}

#[tokio::test]
async fn a_page_of_a_proxy_is_retried() {
    for body in ["<html>Bad Gateway</html>", r#"{"errorCode":"Serv"#, ""] {
        let page = Reply::Answer(502, vec![("content-type", "text/html".into())], body.into());
        let page = Mutex::new(Some(page));
        let server = Server::start(move |_, _| page.lock().unwrap().take().unwrap_or_else(ok)).await;
        let mut sink = sink(settings(&server));
        assert!(matches!(sink.send(&spans(1)).await, Err(SendError::Retry { after: None, .. })));
        assert_eq!(sink.send(&spans(1)).await, Ok(Sent::default()));
    }
}

#[tokio::test]
async fn what_is_our_fault_is_dropped_and_counted() {
    for (status, code) in [
        (400, "PostBodyInvalid"),
        (400, "InvalidTimestamp"),
        (400, "InvalidEncoding"),
        (400, "InvalidKey"),
        (400, "PostBodyUncompressError"),
        (400, "ParameterInvalid"),
        (400, "InvalidCompressType"),
        (400, "MissingBodyRawSize"),
        (400, "InvalidBodyRawSize"),
        (415, "InvalidContentType"),
        (411, "MissingContentLength"),
    ] {
        let server = Server::start(move |_, _| refusal(status, code)).await;
        let reason = format!("spans: log service answered {status} {code}: because (request id REQ-9)");
        let refused = Sent::without(3, Discard::Refused, reason);
        assert_eq!(sink(settings(&server)).send(&spans(3)).await, Ok(refused), "{code}");
        assert_eq!(server.received().len(), 1, "{code}");
    }
}

#[tokio::test]
async fn a_wrong_signature_is_tried_for_the_configured_time_and_then_dropped() {
    let server = Server::start(|_, _| refusal(401, "SignatureNotMatch")).await;
    let longest_refusal = Duration::from_secs(3600);
    let mut sink = sink(SlsSettings { longest_refusal, ..settings(&server) });
    let batch = spans(5);
    for _ in 0..120 {
        let Err(SendError::Retry { after, .. }) = sink.send(&batch).await else { panic!("given up too early") };
        assert_eq!(after, Some(PATIENT), "somebody may be correcting it");
        pass(PATIENT).await;
    }
    assert_eq!(refused(sink.send(&batch).await), 5);
    assert_eq!(server.received().len(), 120 + 3 + 2, "in packs of 5, 3, 2 and 1, and at last what is left");
}

/// Sends it until it is done with: how long that took, and what was lost.
async fn deliver(sink: &mut Sls, batch: &Batch) -> (Duration, u64) {
    let start = tokio::time::Instant::now();
    loop {
        match sink.send(batch).await {
            Ok(sent) => return (start.elapsed(), sent.lost.iter().map(|lost| lost.items).sum()),
            Err(SendError::Retry { after, .. }) => pass(after.unwrap_or(Duration::from_secs(1))).await,
            other => panic!("{other:?}"),
        }
    }
}

/// As a firewall on the way does, that takes a text for an attack.
#[tokio::test]
async fn an_item_that_somebody_refuses_is_found_and_holds_up_the_others_once() {
    let is_bad = |request: &Received| names(request).contains(&"span37".to_owned());
    let server = Server::start(move |_, request| if is_bad(request) { refusal(405, "") } else { ok() }).await;
    let mut sink = sink(SlsSettings { longest_refusal: Duration::from_secs(3600), ..settings(&server) });
    let (took, lost) = deliver(&mut sink, &spans(100)).await;
    assert!(lost == 1 && took > Duration::from_secs(600) && took < Duration::from_secs(800), "{lost}, {took:?}");
    for count in [99, 60, 38] {
        let (took, lost) = deliver(&mut sink, &spans(count)).await;
        assert!(lost == 1 && took < Duration::from_secs(5), "{count}: {lost}, {took:?}");
    }
    let received = server.received();
    assert!(received.len() < 700, "{} requests", received.len());
    let taken = received.iter().filter(|request| !is_bad(request)).map(|request| names(request).len()).sum::<usize>();
    assert_eq!(taken, 99 + 98 + 59 + 37, "each once");
}

#[tokio::test]
async fn quota_pauses_double_until_something_is_taken() {
    let server = Server::start(|n, _| if n == 9 { ok() } else { refusal(403, "WriteQuotaExceed") }).await;
    let mut sink = sink(settings(&server));
    let batch = spans(1);
    let mut pauses = Vec::new();
    for _ in 0..11 {
        if let Err(SendError::Pause { after, .. }) = sink.send(&batch).await {
            pauses.push(after.as_secs());
        }
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60, 1]);
}

#[tokio::test]
async fn too_large_is_halved_until_it_fits_and_one_log_is_dropped() {
    let server = Server::start(|_, request| {
        let names = names(request);
        let too_large = names.len() > 2 || names.contains(&"span5".to_owned());
        if too_large { refusal(400, "PostBodyTooLarge") } else { ok() }
    })
    .await;
    assert_eq!(refused(sink(settings(&server)).send(&spans(9)).await), 1);
    let mut taken: Vec<String> = server
        .received()
        .iter()
        .map(names)
        .filter(|names| names.len() <= 2 && !names.contains(&"span5".to_owned()))
        .flatten()
        .collect();
    taken.sort();
    assert_eq!(taken, ["span0", "span1", "span2", "span3", "span4", "span6", "span7", "span8"]);
}

#[tokio::test]
async fn a_retry_goes_on_after_the_packs_that_were_taken() {
    let server = Server::start(|n, _| if n == 1 { refusal(503, "ServerBusy") } else { ok() }).await;
    let mut sink = sink(settings(&server));
    let batch = spans(9000);
    assert!(matches!(sink.send(&batch).await, Err(SendError::Retry { .. })));
    // The batch may come from a disk the second time: equal bytes elsewhere in memory.
    let again = Batch { body: Bytes::copy_from_slice(&batch.body), ..batch.clone() };
    assert_eq!(sink.send(&again).await, Ok(Sent::default()));

    let received = server.received();
    assert!(received.iter().all(|request| request.header("x-log-bodyrawsize").parse::<usize>().unwrap() <= 1 << 20));
    let packs: Vec<_> = received.iter().map(names).collect();
    assert_eq!(packs[1], packs[2], "the refused pack and its retry");
    let taken = [&packs[0][..], &packs[2], &packs[3]].concat();
    assert_eq!(taken, (0..9000).map(|n| format!("span{n}")).collect::<Vec<_>>());
    let ids: Vec<_> = received.iter().map(|request| group(request).tags[0].value.clone()).collect();
    let id = |n: u32| format!("000000000000FEED-{n}");
    assert_eq!(ids, [id(0), id(1), id(1), id(2)]);
}

/// A sink's signals back off each by itself, so another one's batch comes between attempts.
#[tokio::test]
async fn a_signal_that_waits_keeps_its_place_while_another_is_taken() {
    let server = Server::start(|n, _| if n == 1 { refusal(503, "ServerBusy") } else { ok() }).await;
    let mut sink = sink(settings(&server));
    let batch = spans(9000);
    assert!(matches!(sink.send(&batch).await, Err(SendError::Retry { .. })));
    assert_eq!(sink.send(&sample()).await, Ok(Sent::default()));
    assert_eq!(sink.send(&batch).await, Ok(Sent::default()));

    let of_spans: Vec<_> = server.received().into_iter().filter(|request| request.target.contains("spans")).collect();
    let packs: Vec<_> = of_spans.iter().map(names).collect();
    let taken = [&packs[0][..], &packs[2..].concat()].concat();
    assert_eq!(taken, (0..9000).map(|n| format!("span{n}")).collect::<Vec<_>>());
    assert_eq!(group(&of_spans[1]), group(&of_spans[2]), "the refused pack and its retry");
}

/// Else a batch that is refused for good would wait for ever, as long as there are others.
#[tokio::test]
async fn refusals_of_one_signal_are_counted_while_another_is_taken() {
    let server = Server::start(|_, request| match request.target.contains("spans") {
        true => refusal(401, "SignatureNotMatch"),
        false => ok(),
    })
    .await;
    let longest_refusal = 2 * PATIENT;
    let mut sink = sink(SlsSettings { longest_refusal, ..settings(&server) });
    for _ in 0..2 {
        assert!(matches!(sink.send(&spans(5)).await, Err(SendError::Retry { .. })));
        pass(PATIENT).await;
        assert_eq!(sink.send(&sample()).await, Ok(Sent::default()));
    }
    assert_eq!(refused(sink.send(&spans(5)).await), 5);
}

#[tokio::test]
async fn the_pause_of_one_signal_doubles_while_another_is_taken() {
    let server = Server::start(|_, request| match request.target.contains("spans") {
        true => refusal(403, "ShardWriteQuotaExceed"),
        false => ok(),
    })
    .await;
    let mut sink = sink(settings(&server));
    for seconds in [1, 2, 4] {
        match sink.send(&spans(1)).await {
            Err(SendError::Retry { after, .. }) => assert_eq!(after, Some(Duration::from_secs(seconds))),
            other => panic!("{other:?}"),
        }
        assert_eq!(sink.send(&sample()).await, Ok(Sent::default()));
    }
}

#[tokio::test]
async fn only_a_lost_reply_makes_a_duplicate() {
    let server = Server::start(|n, _| if n == 0 { Reply::Close } else { ok() }).await;
    let mut sink = sink(settings(&server));
    let batch = spans(2);
    assert!(matches!(sink.send(&batch).await, Err(SendError::Retry { .. })));
    assert_eq!(sink.send(&batch).await, Ok(Sent::default()));
    let received = server.received();
    assert_eq!(received.len(), 2);
    assert_eq!(group(&received[0]), group(&received[1]));
}

#[tokio::test]
async fn silence_ends_with_the_timeout_and_an_abort_loses_nothing() {
    let server = Server::start(|n, _| if n < 2 { Reply::Silence } else { ok() }).await;
    let mut sink = sink(SlsSettings { timeout: Duration::from_millis(50), ..settings(&server) });
    let batch = spans(2);
    assert!(matches!(sink.send(&batch).await, Err(SendError::Retry { .. })));
    let aborted = tokio::time::timeout(Duration::from_millis(10), sink.send(&batch)).await;
    assert!(aborted.is_err());
    assert_eq!(sink.send(&batch).await, Ok(Sent::default()));
}

#[tokio::test]
async fn a_clock_that_is_off_is_set_by_the_service() {
    let server = Server::start(|_, request| match request.header("x-log-date") {
        "20261123T120000Z" => ok(),
        _ => {
            let body = r#"{"errorCode":"RequestTimeTooSkewed","errorMessage":"x"}"#.to_owned();
            Reply::Answer(400, vec![("date", "Mon, 23 Nov 2026 12:00:00 GMT".into())], body)
        }
    })
    .await;
    let mut sink = sink(settings(&server));
    assert_eq!(sink.send(&spans(1)).await, Ok(Sent::default()));
    assert_eq!(server.received().len(), 2);
    assert_eq!(sink.send(&spans(2)).await, Ok(Sent::default()));
    assert_eq!(server.received().len(), 3, "the offset is kept");
    let repacked = &group(&server.received()[1]).logs[0];
    assert_eq!(repacked.time, 1_795_428_000 + 7200, "times are by the service's clock as well");
}

#[tokio::test]
async fn expired_keys_are_renewed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "oidc-token\n").unwrap();
    let sts = Server::start(|n, _| {
        let body = format!(
            r#"{{"RequestId":"R","Credentials":{{"AccessKeyId":"STS.{n}","AccessKeySecret":"s{n}",
                "SecurityToken":"t{n}","Expiration":"2026-11-23T11:00:00Z"}}}}"#
        );
        Reply::Answer(200, vec![], body)
    })
    .await;
    let server = Server::start(|n, request| match (n, request.header("x-acs-security-token")) {
        (0, "t0") | (_, "t1") => ok(),
        _ => refusal(401, "SecurityTokenExpired"),
    })
    .await;
    let mut settings = settings(&server);
    settings.auth.source = Source::Rrsa(RrsaSettings {
        role_arn: Some("acs:ram::1:role/tail".into()),
        provider_arn: Some("acs:ram::1:oidc-provider/ack".into()),
        token_file: Some(token_file),
        session_name: None,
    });
    settings.auth.endpoints.sts = Some(format!("http://{}", sts.address));
    let clock = Arc::new(AtomicU64::new(NOW));
    let mut sink = Sls::new(settings, world(&clock)).unwrap();
    assert_eq!(sink.send(&spans(1)).await, Ok(Sent::default()));
    clock.fetch_add(60_000, Relaxed);
    assert_eq!(sink.send(&spans(2)).await, Ok(Sent::default()));
    let used: Vec<_> =
        server.received().iter().map(|request| request.header("x-acs-security-token").to_owned()).collect();
    assert_eq!(used, ["t0", "t0", "t1"]);
    assert_eq!(sts.received().len(), 2);
}

#[tokio::test]
async fn a_probe_asks_for_the_store_and_names_the_request() {
    let server = Server::start(|_, request| match request.target.as_str() {
        "/logstores/spans" => ok(),
        _ => refusal(404, "LogStoreNotExist"),
    })
    .await;
    let mut sink = sink(settings(&server));
    assert_eq!(sink.probe("spans").await.unwrap(), "OK-1");
    assert!(sink.probe("samples").await.unwrap_err().text.contains("REQ-9"));
    let request = &server.received()[0];
    assert_eq!((request.method.as_str(), request.header("x-log-bodyrawsize")), ("GET", "0"));
}

#[tokio::test]
async fn what_is_not_otlp_or_has_no_store_is_refused() {
    let server = Server::start(|_, _| ok()).await;
    let mut sink = sink(settings(&server));
    assert!(sink.takes(Signal::Metrics) && !sink.takes(Signal::Logs));
    let logs = Batch { signal: Signal::Logs, ..spans(1) };
    assert!(matches!(sink.send(&logs).await, Err(SendError::Refused { .. })));
    let broken = Batch { body: Bytes::from_static(b"\xff\xff"), ..spans(2) };
    assert!(matches!(sink.send(&broken).await, Err(SendError::Refused { .. })));
    assert!(server.received().is_empty());
}

/// Metrics and logs pass through as they came, and a batch has those of many senders.
#[tokio::test]
async fn one_record_that_is_not_otlp_does_not_take_others_along() {
    let server = Server::start(|_, _| ok()).await;
    let mut sink = sink(settings(&server));
    let Batch { signal, body, items } = spans(2);
    let name = body.windows(5).rposition(|text| text == b"span1").unwrap();
    let changed = |at: usize, byte: u8| {
        let mut bytes = body.to_vec();
        bytes[at] = byte;
        Batch { signal, body: bytes.into(), items }
    };
    // A text that is not UTF-8 is repaired.
    assert_eq!(sink.send(&changed(name + 4, 0xff)).await, Ok(Sent::default()));
    // A text that is longer than its span makes the span malformed, and no other.
    let sent = sink.send(&changed(name - 1, 0x7f)).await.unwrap();
    assert_eq!(sent.lost.iter().map(|lost| (lost.items, lost.why)).collect::<Vec<_>>(), [(1, Discard::Rejected)]);
    let received: Vec<Vec<String>> = server.received().iter().map(names).collect();
    assert_eq!(received, [vec!["span0", "span\u{fffd}"], vec!["span0"]]);
}

/// A message may quote what was signed, and the token is part of it.
#[tokio::test]
async fn a_token_that_a_refusal_quotes_is_hidden() {
    let server = Server::start(|_, request| {
        let signed = format!("{}x-acs-security-token:{}", "h".repeat(270), request.header("x-acs-security-token"));
        Reply::Answer(401, vec![], format!(r#"{{"errorCode":"SignatureNotMatch","errorMessage":"{signed}"}}"#))
    })
    .await;
    let token = Some(Secret::new("swordfish-and-more"));
    let mut settings = settings(&server);
    settings.auth.source = Source::Keys { id: "id".into(), secret: Secret::new("secret"), token };
    match sink(settings).send(&spans(1)).await {
        Err(SendError::Retry { reason, .. }) => {
            assert!(reason.contains("x-acs-security-token:[hidden") && !reason.contains("sword"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn no_secret_is_printed() {
    let server = Server::start(|_, _| refusal(401, "SignatureNotMatch")).await;
    let mut settings = settings(&server);
    settings.auth.source =
        Source::Keys { id: "id".into(), secret: Secret::new("swordfish"), token: Some(Secret::new("hunter2")) };
    let shown = format!("{settings:?}");
    let mut sink = sink(settings);
    let error = format!("{:?} {:?}", sink.send(&spans(1)).await, sink.identity());
    for secret in ["swordfish", "hunter2"] {
        assert!(!shown.contains(secret) && !error.contains(secret));
    }
    let all: HashMap<_, _> = server.received()[0].headers.clone();
    assert_eq!(all["x-acs-security-token"], "hunter2");
}
