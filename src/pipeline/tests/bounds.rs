use super::*;
use crate::processing::Keys;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};

fn logs(records: usize, text: &str) -> Vec<u8> {
    let record = LogRecord { severity_text: text.into(), ..Default::default() };
    let scope_logs = vec![ScopeLogs { log_records: vec![record; records], ..Default::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..Default::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

/// What is larger than all that the queue may hold would be acknowledged, and then push out a part of itself.
#[test]
fn of_a_request_of_logs_that_the_queue_cannot_hold_the_rest_is_refused_in_words() {
    let text = "x".repeat(1000);
    let fits = pass(Signal::Logs, &logs(8_000, &text));
    assert_eq!((fits.accepted(Signal::Logs), decoded(Signal::Logs, &fits.body())), (8_000, Some(8_000)));
    let passed = pass(Signal::Logs, &logs(9_000, &text));
    let taken = passed.accepted(Signal::Logs);
    assert!((7_000..8_400).contains(&taken), "{taken}");
    assert_eq!(passed.delivered.iter().map(|batch| batch.items).sum::<u64>(), taken, "nothing pushed out a part of it");
    let answer = passed.answer.expect("it is valid");
    let rest = 9_000 - taken;
    assert_eq!(answer.rejected, rest);
    let words = format!("log records rejected: {rest} beyond 8388608 bytes in one request: send smaller requests");
    assert_eq!(answer.message, words);
}

/// Each byte of it becomes three: the copy would be more than what was admitted, and more than the queue holds.
#[test]
fn a_repair_takes_no_more_memory_than_twice_the_request_or_the_queue() {
    let broken = |records| {
        let mut body = logs(records, &"~".repeat(1000));
        body.iter_mut().filter(|byte| **byte == b'~').for_each(|byte| *byte = 0xff);
        pass(Signal::Logs, &body)
    };
    assert_eq!(broken(2_000).accepted(Signal::Logs), 2_000);
    let refused = broken(4_000);
    assert_eq!((refused.accepted(Signal::Logs), refused.delivered.len()), (0, 0));
    assert_eq!(refused.answer.expect("it is valid").rejected, 4_000);
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
