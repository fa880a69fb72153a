//! `tailkeep policy estimate`, over a store and over recordings.

use super::{Place, assert_says};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use serde_json::{Value, json};
use std::fs;
use tailkeep::store::{SIZE_MIN, StoreFile};

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Any::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..Default::default() }
}

/// A trace of one span as a sink gets it; `weight` is its tracestate.
fn kept(number: u64, service: &str, error: bool, weight: &str, marks: &[(&str, &str)]) -> ResourceSpans {
    let begin = 1_700_000_000_000_000_000 + number * 1_000_000_000;
    let span = Span {
        trace_id: u128::from(number + 1).to_be_bytes().to_vec(),
        span_id: vec![1; 8],
        name: format!("GET /{}", number % 2),
        trace_state: weight.into(),
        start_time_unix_nano: begin,
        end_time_unix_nano: begin + (number + 1) * 1_000_000,
        status: error.then(|| Status { code: 2, ..Default::default() }),
        attributes: marks.iter().map(|(key, value)| text(key, value)).collect(),
        ..Default::default()
    };
    let resource = Resource { attributes: vec![text("service.name", service)], ..Default::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
    ResourceSpans { resource: Some(resource), scope_spans, ..Default::default() }
}

/// Of 100 requests 5 failed and were kept whole; the share of 5 % has kept 5 of the rest. Beside them one was kept by hand,
/// one because it came late, and one by a limit with `then: none`.
fn request() -> Vec<u8> {
    let mut resource_spans: Vec<ResourceSpans> = (0..5).map(|n| kept(n, "shop", true, "ot=th:0", &[])).collect();
    resource_spans.extend((5..10).map(|n| kept(n, "shop", false, "a=b,ot=th:f3333333333333", &[])));
    resource_spans.push(kept(10, "shop", false, "", &[("tailkeep.rule", "api")]));
    resource_spans.push(kept(11, "shop", true, "", &[("tailkeep.rule", "x"), ("tailkeep.trigger", "late")]));
    resource_spans.push(kept(12, "pay", true, "a=b", &[("tailkeep.rule", "capped")]));
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// The same traces in a store and in a recording.
fn place() -> Place {
    let place = Place::with(&[("tailkeep.yaml", "sinks: [{ name: here, store: { path: kept.db } }]\n")]);
    fs::write(place.0.path().join("kept.binpb"), request()).unwrap();
    let mut store = StoreFile::new(place.0.path().join("kept.db"), SIZE_MIN);
    assert_eq!(store.write(&request()).unwrap(), 0);
    store.close();
    place
}

fn estimate(place: &Place, arguments: &[&str]) -> Value {
    let output = place.run(&[&["policy", "estimate", "--format", "json"], arguments].concat());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn five_errors_among_a_hundred_requests_are_five_percent() {
    let place = place();
    let sources: [&[&str]; 3] = [&["--store", "kept.db"], &["--config", "tailkeep.yaml"], &["--traces", "kept.binpb"]];
    let reports = sources.map(|source| estimate(&place, source));
    for report in &reports {
        assert_eq!(report, &reports[0], "a store and a recording of the same traces say the same");
        let shop = &report["groups"][0];
        assert_eq!((&shop["service"], &shop["kept"], &shop["drawn"]), (&json!("shop"), &json!(10), &json!(5)));
        let number = |path: &str| shop.pointer(path).unwrap().as_f64().unwrap();
        assert!((number("/traces/estimate") - 105.0).abs() < 1e-6 && number("/errors/estimate") == 5.0, "{shop}");
        assert!((number("/error_ratio/estimate") - 0.0476).abs() < 1e-4, "{shop}");
        assert!(number("/error_ratio/low") < 0.05 && number("/error_ratio/high") > 0.05, "{shop}");
        assert!(number("/duration_ms/p50/estimate") >= 6.0, "most were those of the share: {shop}");
        assert_eq!((&report["stood_for"], &report["total"]["without_weight"]), (&json!(2), &json!(1)));
        assert_eq!((&report["confidence"], &report["seconds"]), (&json!(0.95), &json!(12.0)));
    }
    let rows = [
        "shop",
        "4.76 %",
        "2.13 % – 10.3 %",
        "P99",
        "2 traces that were kept by hand",
        "1 kept traces carry no weight",
    ];
    assert_says(&place, &["policy", "estimate", "--store", "kept.db"], 0, &rows);
}

#[test]
fn some_traces_are_estimated_by_a_condition_of_the_language() {
    let place = place();
    for source in [["--store", "kept.db"], ["--traces", "kept.binpb"]] {
        let errors = estimate(&place, &[&source[..], &["--where", "error"]].concat());
        assert_eq!((&errors["total"]["kept"], &errors["total"]["traces"]["estimate"]), (&json!(6), &json!(6.0)));
        let condition = "entry: { service: shop, name: GET /1 }, duration: { at_least: 6ms }";
        let one = estimate(&place, &[&source[..], &["--where", condition, "--by", "service,name"]].concat());
        assert_eq!(one["groups"].as_array().unwrap().len(), 1, "{one}");
        assert_eq!((&one["groups"][0]["name"], &one["total"]["kept"]), (&json!("GET /1"), &json!(3)));
        let names = estimate(&place, &[&source[..], &["--by", "service,name"]].concat());
        assert_eq!(names["groups"].as_array().unwrap().len(), 3, "{names}");
        let wrong = [&["policy", "estimate"], &source[..], &["--where", "eror: true"]].concat();
        assert_says(&place, &wrong, 2, &["did you mean `error`"]);
        let none = [&["policy", "estimate"], &source[..], &["--where", "services: nobody"]].concat();
        assert_says(&place, &none, 2, &["no kept trace is like that"]);
        let old = [&["policy", "estimate"], &source[..], &["--since", "1h"]].concat();
        assert_says(&place, &old, 2, &["no kept trace is like that"]);
    }
    assert_says(&place, &["policy", "estimate", "--store", "nowhere.db"], 2, &["there is no store at nowhere.db"]);
    assert_says(&place, &["policy", "estimate", "--traces", "kept.db"], 2, &["nothing can be estimated"]);
    assert_says(&place, &["policy", "estimate", "--by", "host"], 2, &["service,name"]);
}
