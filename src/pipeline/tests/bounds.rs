use super::*;
use crate::processing::Keys;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};

/// What is larger than all that the queue may hold would be acknowledged, and then push out a part of itself.
#[test]
fn a_request_of_logs_that_the_queue_cannot_hold_is_refused_in_words() {
    let body = |records: usize| {
        let record = LogRecord { severity_text: "x".repeat(1000), ..Default::default() };
        let scope_logs = vec![ScopeLogs { log_records: vec![record; records], ..Default::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..Default::default() }];
        ExportLogsServiceRequest { resource_logs }.encode_to_vec()
    };
    let fits = pass(Signal::Logs, &body(8_000));
    assert_eq!((fits.accepted(Signal::Logs), decoded(Signal::Logs, &fits.body())), (8_000, Some(8_000)));
    let passed = pass(Signal::Logs, &body(9_000));
    assert_eq!((passed.accepted(Signal::Logs), passed.delivered.len()), (0, 0));
    let answer = passed.answer.expect("it is valid");
    assert_eq!(answer.rejected, 9_000);
    assert_eq!(answer.message, "log records rejected: 9000 beyond 8388608 bytes in one request: send smaller requests");
}

/// It is as large as it leaves, not as it came.
#[test]
fn a_request_that_is_too_large_once_it_is_processed_is_refused_too() {
    let body = |records: usize| {
        let value = Some(AnyValue { value: Some(any_value::Value::IntValue(7)) });
        let attributes = vec![KeyValue { key: "id".into(), value, ..Default::default() }];
        let record = LogRecord { attributes, ..Default::default() };
        let scope_logs = vec![ScopeLogs { log_records: vec![record; records], ..Default::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..Default::default() }];
        ExportLogsServiceRequest { resource_logs }.encode_to_vec()
    };
    let pass = |records| {
        let hash = Keys::new(["id".to_owned()]);
        pass_processed(ProcessingSettings { hash, ..Default::default() }, Signal::Logs, &body(records))
    };
    let fits = pass(100_000);
    assert_eq!((fits.accepted(Signal::Logs), decoded(Signal::Logs, &fits.body())), (100_000, Some(100_000)));
    assert!(body(120_000).len() < 2 << 20 && fits.body().len() > 7 << 20);
    let passed = pass(120_000);
    assert_eq!((passed.accepted(Signal::Logs), passed.delivered.len()), (0, 0));
    assert_eq!(passed.answer.expect("it is valid").rejected, 120_000);
}
