use super::*;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;
use tempfile::TempDir;

fn request(name: &str) -> ExportTraceServiceRequest {
    let attribute = |key: &str, value| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..Default::default()
    };
    let span = Span {
        trace_id: (0..16).collect(),
        span_id: vec![0xab; 8],
        name: name.to_owned(),
        kind: 2,
        start_time_unix_nano: 1_544_712_660_000_000_001,
        attributes: vec![attribute("count", Value::IntValue(1 << 60)), attribute("slow", Value::BoolValue(true))],
        ..Default::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] }
}

fn batch(name: &str) -> Batch {
    Batch { signal: Signal::Traces, body: request(name).encode_to_vec().into(), items: 1 }
}

fn settings(folder: &Path, format: RecordFormat) -> FileSettings {
    FileSettings { folder: folder.to_owned(), format, signals: [true; 3], size: 1 << 20, keep: 2 }
}

#[tokio::test]
async fn json_lines_are_otlp_json() {
    let folder = TempDir::new().unwrap();
    let mut sink = FileSink::new(settings(&folder.path().join("new"), RecordFormat::Json));
    for name in ["first", "second"] {
        assert_eq!(sink.send(&batch(name)).await, Ok(Sent::default()));
    }
    sink.close().await;
    let text = fs::read_to_string(folder.path().join("new/traces.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    let span = &lines[0]["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["traceId"], "000102030405060708090a0b0c0d0e0f");
    assert_eq!(span["spanId"], "abababababababab");
    assert_eq!(span["startTimeUnixNano"], "1544712660000000001");
    assert_eq!(span["kind"], 2);
    assert_eq!(span["attributes"][0]["value"]["intValue"], (1u64 << 60).to_string());
    assert_eq!(serde_json::from_value::<ExportTraceServiceRequest>(lines[1].clone()).unwrap(), request("second"));
}

#[tokio::test]
async fn files_are_rotated_by_size_and_the_oldest_go() {
    let folder = TempDir::new().unwrap();
    let bytes = 2 * (batch("a").body.len() as u64 + PREFIX);
    let mut sink = FileSink::new(FileSettings { size: bytes, ..settings(folder.path(), RecordFormat::Protobuf) });
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        sink.send(&batch(name)).await.unwrap();
    }
    sink.close().await;
    let names = |file: &str| {
        let bytes = fs::read(folder.path().join(file)).unwrap();
        let mut rest = bytes.as_slice();
        let mut names = String::new();
        while let Some((prefix, after)) = rest.split_first_chunk::<4>() {
            let (message, after) = after.split_at(u32::from_be_bytes(*prefix) as usize);
            let request = ExportTraceServiceRequest::decode(message).unwrap();
            names += &request.resource_spans[0].scope_spans[0].spans[0].name;
            rest = after;
        }
        names
    };
    assert_eq!([names("traces.binpb"), names("traces.1.binpb"), names("traces.2.binpb")], ["g", "ef", "cd"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[tokio::test]
async fn a_record_that_a_crash_cut_off_is_removed() {
    for (format, file) in [(RecordFormat::Json, "traces.jsonl"), (RecordFormat::Protobuf, "traces.binpb")] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(file);
        let mut sink = FileSink::new(settings(folder.path(), format));
        sink.send(&batch("whole")).await.unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, [whole.as_slice(), &whole[..cut]].concat()).unwrap();
            let mut sink = FileSink::new(settings(folder.path(), format));
            sink.send(&batch("whole")).await.unwrap();
            assert_eq!(fs::read(&path).unwrap(), whole.repeat(2), "{file} cut at {cut}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_written_now_is_tried_again() {
    let folder = TempDir::new().unwrap();
    let blocked = folder.path().join("out");
    fs::write(&blocked, "a file where the folder should be").unwrap();
    let mut sink = FileSink::new(settings(&blocked, RecordFormat::Json));
    let error = sink.send(&batch("first")).await.unwrap_err();
    assert!(matches!(&error, SendError::Retry { reason, .. } if reason.contains("traces.jsonl")), "{error:?}");
    fs::remove_file(&blocked).unwrap();
    sink.send(&batch("first")).await.unwrap();

    let malformed = Batch { body: "no protobuf".into(), ..batch("x") };
    assert!(matches!(sink.send(&malformed).await, Err(SendError::Refused { .. })));
}

#[test]
fn a_full_disk_leaves_no_part_of_a_record() {
    // /dev/full takes no byte and cannot be cut either: both errors must come out, nothing may panic.
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("traces.jsonl");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let mut files = SignalFiles { settings: settings(folder.path(), RecordFormat::Json), open: [None, None, None] };
    let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    files.open[0] = Some(OpenFile { file, len: 0 });
    let batch = batch("first");
    let record = FileRecord::new(RecordFormat::Json, &batch).unwrap();
    assert!(files.append(&record).is_err());
    assert!(files.open[0].is_none(), "it is opened afresh");
    fs::remove_file(path).unwrap();
    files.append(&record).unwrap();
}

#[tokio::test]
async fn a_file_that_was_taken_away_is_made_anew() {
    let names = |path: &Path| -> Vec<String> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let request = |line| serde_json::from_str::<ExportTraceServiceRequest>(line).unwrap();
        let name = |line| request(line).resource_spans[0].scope_spans[0].spans[0].name.clone();
        text.lines().map(name).collect()
    };
    let take_away: [fn(&Path); 4] = [
        |path| fs::remove_file(path).unwrap(),
        |path| fs::rename(path, path.with_extension("old")).unwrap(),
        |path| fs::remove_dir_all(path.parent().unwrap()).unwrap(),
        // As logrotate's `copytruncate` does.
        |path| fs::write(path, "").unwrap(),
    ];
    for (at, take_away) in take_away.into_iter().enumerate() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("out/traces.jsonl");
        let mut sink = FileSink::new(settings(path.parent().unwrap(), RecordFormat::Json));
        sink.send(&batch("first")).await.unwrap();
        take_away(&path);
        sink.send(&batch("second")).await.unwrap();
        sink.send(&batch("third")).await.unwrap();
        assert_eq!(names(&path), ["second", "third"], "case {at}");
    }
}

#[tokio::test]
async fn one_bad_record_does_not_take_the_others_with_it() {
    let folder = TempDir::new().unwrap();
    let mut sink = FileSink::new(settings(folder.path(), RecordFormat::Json));
    let mut request = request("whole");
    let mut spans = request.resource_spans[0].scope_spans[0].spans.clone();
    spans.push(Span { name: "also".into(), ..Default::default() });
    request.resource_spans[0].scope_spans[0].spans = spans;
    let mut body = request.encode_to_vec();
    let at = body.windows(4).position(|window| window == b"also").unwrap();
    // The name's length says more than there is.
    body[at - 1] = 200;
    let sent = Batch { body: body.into(), ..batch("x") };
    assert!(matches!(sink.send(&sent).await, Err(SendError::Split { .. })));
    assert!(!folder.path().join("traces.jsonl").exists(), "nothing of it was written");
}

#[tokio::test]
async fn a_panic_in_the_middle_of_a_record_leaves_no_part_of_it() {
    for (format, file) in [(RecordFormat::Json, "traces.jsonl"), (RecordFormat::Protobuf, "traces.binpb")] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(file);
        let mut sink = FileSink::new(settings(folder.path(), format));
        sink.send(&batch("first")).await.unwrap();
        let whole = fs::read(&path).unwrap();
        let panicked = sink.files.run(|files| -> () {
            let open = files.open[0].as_mut().expect("it was written");
            open.file.write_all(b"{\"part").unwrap();
            panic!("as a defect does");
        });
        assert!(matches!(panicked.await, Err(SendError::Denied { .. })));
        sink.send(&batch("first")).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole.repeat(2), "{file}");
        sink.close().await;
    }
}
