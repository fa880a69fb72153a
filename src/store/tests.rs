use super::*;
use crate::{
    otlp::wire::put_bytes,
    trace::{Standing, TraceId},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status as SpanStatus},
};
use proptest::prelude::*;
use prost::Message;
use rusqlite::Connection;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

const MS: u64 = 1_000_000;

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

fn trace_id(number: u64) -> TraceId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    id[8..].copy_from_slice(&number.to_be_bytes());
    TraceId(id)
}

/// `parent` 0 makes a root.
fn span(trace: u64, id: u64, parent: u64, start: u64, duration: u64) -> Span {
    Span {
        trace_id: trace_id(trace).0.to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        parent_span_id: if parent == 0 { vec![] } else { parent.to_be_bytes().to_vec() },
        name: format!("span-{id}"),
        kind: 1,
        start_time_unix_nano: start * MS,
        end_time_unix_nano: (start + duration) * MS,
        attributes: vec![attribute("http.route", &format!("/{id}"))],
        ..Default::default()
    }
}

fn failed(mut span: Span) -> Span {
    span.status = Some(SpanStatus { code: 2, message: "boom".to_owned() });
    span
}

fn resource_spans(service: &str, spans: Vec<Span>) -> ResourceSpans {
    let scope = Some(InstrumentationScope { name: "lib".to_owned(), version: "1.2".to_owned(), ..Default::default() });
    let resource = Some(Resource { attributes: vec![attribute("service.name", service)], ..Default::default() });
    let scope_spans = vec![ScopeSpans { scope, spans, schema_url: "https://schema.test/1".to_owned() }];
    ResourceSpans { resource, scope_spans, schema_url: "https://schema.test/0".to_owned() }
}

fn batch(resource_spans: Vec<ResourceSpans>) -> Vec<u8> {
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

struct Fixture {
    folder: TempDir,
    file: StoreFile,
}

impl Fixture {
    fn new(size: u64) -> Fixture {
        let folder = TempDir::new().unwrap();
        let file = StoreFile::new(folder.path().join("data/tailkeep.db"), size);
        Fixture { folder, file }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("data/tailkeep.db")
    }

    fn send(&mut self, batch: &[u8]) -> Result<u64, StoreFailure> {
        self.file.write(batch)
    }

    fn store(&self) -> Store {
        Store::open_read(&self.path()).unwrap()
    }

    fn all(&self) -> Vec<TraceRow> {
        self.store().traces(&TraceFilter { limit: usize::MAX, ..Default::default() }).unwrap()
    }
}

/// All spans of a stored trace, page by page.
fn spans_of(store: &Store, id: TraceId) -> Vec<u8> {
    let trace = store.trace(id).unwrap().expect("it is stored");
    let (mut body, mut page) = (Vec::new(), store.spans(&trace, None).unwrap());
    while let Some(spans) = page {
        body.extend(&spans.body);
        page = store.spans(&trace, Some(&spans)).unwrap();
    }
    body
}

/// Both would number their traces alike, and overwrite each other's.
#[test]
fn a_second_writer_waits_for_the_end_of_the_first() {
    let mut first = Fixture::new(SIZE_MIN);
    let mut second = StoreFile::new(first.path(), SIZE_MIN);
    first.send(&batch(vec![resource_spans("web", vec![span(1, 10, 0, 1000, 300)])])).unwrap();
    let other = batch(vec![resource_spans("web", vec![span(2, 10, 0, 1000, 300)])]);
    let Err(StoreFailure::Later(reason)) = second.write(&other) else { panic!("two writers") };
    assert!(reason.contains("another tailkeep") && reason.contains("`path`"), "{reason}");
    first.file.close();
    second.write(&other).unwrap();
    assert_eq!(first.all().len(), 2);
}

#[test]
fn a_stored_trace_comes_back_as_it_was() {
    let mut fixture = Fixture::new(SIZE_MIN);
    let mut root = failed(span(1, 10, 0, 1000, 300));
    root.attributes.push(attribute("tailkeep.rule", "keep-errors"));
    root.attributes.push(attribute("tailkeep.trigger", "root"));
    root.attributes.push(attribute("tailkeep.reason", "failed"));
    root.attributes.push(attribute("tailkeep.incomplete", "late"));
    root.trace_state = "vendor=1,ot=rv:00000000000001;th:8".to_owned();
    let mut body = Vec::new();
    for (service, span) in [("web", root), ("db", span(1, 11, 10, 1100, 900))] {
        put_resource_spans(&mut body, service, &span);
    }
    fixture.send(&body).unwrap();
    fixture.file.close();

    let stored = fixture.store().trace(trace_id(1)).unwrap().unwrap();
    assert_eq!(spans_of(&fixture.store(), trace_id(1)), body);
    assert_eq!((stored.errors, stored.envelope), (1, Duration::from_millis(1000)));
    let row = &stored.row;
    assert_eq!((row.service.as_str(), row.name.as_str(), row.span_count), ("web", "span-10", 2));
    assert_eq!((row.start, row.duration), (1_000_000_000, Duration::from_millis(300)));
    assert_eq!((row.error, row.services.as_slice()), (true, &["db".to_owned(), "web".to_owned()][..]));
    let texts = [&row.rule, &row.trigger, &row.reason, &row.incomplete, &row.threshold];
    assert_eq!(texts.map(|text| text.as_deref().unwrap()), ["keep-errors", "root", "failed", "late", "8"]);
    assert!(fixture.store().trace(trace_id(2)).unwrap().is_none());
}

#[test]
fn a_long_trace_comes_in_pages_and_each_span_once() {
    let mut fixture = Fixture::new(4 * SIZE_MIN);
    let large = |id: u64| {
        let mut span = span(1, id, 1, id, 1);
        span.attributes.push(attribute("text", &"x".repeat(1000)));
        span
    };
    for (at, service) in ["web", "db", "web"].into_iter().enumerate() {
        let first = 1 + at as u64 * 1500;
        fixture.send(&batch(vec![resource_spans(service, (first..first + 1500).map(large).collect())])).unwrap();
    }
    let store = fixture.store();
    let trace = store.trace(trace_id(1)).unwrap().unwrap();
    let first = store.spans(&trace, None).unwrap().unwrap();
    assert!(first.body.len() < 3 << 20, "one page of {} bytes", first.body.len());
    let all = ExportTraceServiceRequest::decode(&spans_of(&store, trace_id(1))[..]).unwrap();
    let mut ids: Vec<Vec<u8>> = Vec::new();
    for scope in all.resource_spans.into_iter().flat_map(|resource| resource.scope_spans) {
        ids.extend(scope.spans.into_iter().map(|span| span.span_id));
    }
    ids.sort();
    assert_eq!(ids, (1..=4500u64).map(|id| id.to_be_bytes().to_vec()).collect::<Vec<_>>());
}

/// With fields that nobody knows on every level.
fn put_resource_spans(body: &mut Vec<u8>, service: &str, span: &Span) {
    const UNKNOWN: [u8; 3] = [0xf8, 0x3f, 5];
    let known = resource_spans(service, vec![]);
    let mut scope = [known.scope_spans[0].encode_to_vec(), UNKNOWN.to_vec()].concat();
    put_bytes(&mut scope, 2, &[span.encode_to_vec(), UNKNOWN.to_vec()].concat());
    let mut resource = ResourceSpans { scope_spans: vec![], ..known }.encode_to_vec();
    resource.extend(UNKNOWN);
    put_bytes(&mut resource, 2, &scope);
    put_bytes(body, 1, &resource);
}

/// Late spans write the rows of all of them again.
#[test]
fn a_trace_of_very_many_services_is_found_by_some_of_them() {
    let mut fixture = Fixture::new(SIZE_MIN);
    let services = span::TRACE_SERVICES_MAX as u64 + 44;
    for ids in [1..200, 200..services + 1] {
        let of_service = |id| resource_spans(&format!("service {id}"), vec![span(1, id, 0, 1000, 300)]);
        fixture.send(&batch(ids.map(of_service).collect())).unwrap();
    }
    fixture.file.close();
    let row = fixture.store().trace(trace_id(1)).unwrap().unwrap().row;
    assert_eq!((row.span_count, row.services.len()), (services, span::TRACE_SERVICES_MAX));
}

#[test]
fn the_documented_sql_works() {
    let mut fixture = Fixture::new(SIZE_MIN);
    let spans = vec![span(1, 10, 0, 1000, 300), failed(span(1, 11, 10, 1100, 50))];
    fixture.send(&batch(vec![resource_spans("web", spans)])).unwrap();
    let db = Connection::open(fixture.path()).unwrap();
    let sql = "SELECT service || ' ' || name || ' ' || kind || ' ' || status_message || ' ' || duration_ns || ' ' || scope
               FROM span_list WHERE trace_id = ?1 AND attributes ->> 'http.route' = '/11' AND parent_id = '000000000000000a'
               AND resource ->> 'service.name' = 'web'";
    let text: String = db.query_row(sql, [trace_id(1).to_string()], |row| row.get(0)).unwrap();
    assert_eq!(text, "web span-11 internal boom 50000000 lib");
    let version: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, SCHEMA_VERSION);
}

#[test]
fn late_spans_update_what_is_stored() {
    let mut fixture = Fixture::new(SIZE_MIN);
    let mut server = span(1, 12, 11, 1100, 900);
    server.kind = 2;
    fixture.send(&batch(vec![resource_spans("db", vec![server])])).unwrap();
    let row = &fixture.all()[0];
    assert_eq!((row.service.as_str(), row.duration), ("db", Duration::from_millis(900)), "the orphan is the entry");

    let rest = batch(vec![resource_spans("web", vec![span(1, 10, 0, 1000, 300), failed(span(1, 11, 10, 1050, 960))])]);
    for _ in 0..2 {
        // The second time, nothing is new: a batch may be delivered twice.
        fixture.send(&rest).unwrap();
        let rows = fixture.all();
        assert_eq!(rows.len(), 1);
        let row = &rows[0];
        assert_eq!((row.service.as_str(), row.duration), ("web", Duration::from_millis(300)));
        assert_eq!((row.error, row.span_count, row.services.len()), (true, 3, 2));
    }
    for service in ["web", "db"] {
        let filter = TraceFilter { service: Some(service.to_owned()), errors: true, limit: 9, ..Default::default() };
        assert_eq!(fixture.store().traces(&filter).unwrap().len(), 1, "{service}");
    }
}

#[test]
fn spans_that_are_no_spans_are_counted_and_the_others_kept() {
    let mut fixture = Fixture::new(SIZE_MIN);
    let mut without_id = span(1, 11, 10, 0, 1);
    without_id.trace_id.clear();
    let sent = batch(vec![resource_spans("web", vec![span(1, 10, 0, 0, 1), without_id])]);
    assert_eq!(fixture.send(&sent).unwrap(), 1);
    assert_eq!(fixture.all().len(), 1);
    assert!(matches!(fixture.send(b"no protobuf"), Err(StoreFailure::Malformed)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The same spans in any grouping into batches give the same row.
    #[test]
    fn a_row_does_not_depend_on_batches(
        spans in prop::collection::vec((1u64..6, 0u64..6, 0u64..50, 0u64..50, any::<bool>(), 0u32..2), 1..8),
        cuts in prop::collection::vec(any::<bool>(), 8),
    ) {
        let spans: Vec<Span> = spans.into_iter().enumerate().map(|(at, (id, parent, start, duration, fails, remote))| {
            let mut span = span(1, id * 8 + at as u64, parent, start, duration);
            // Where the flags speak, an entry does not depend on what else is in its batch.
            span.flags = 0x100 | (remote * 0x200);
            if fails { failed(span) } else { span }
        }).collect();
        let row_of = |batches: Vec<Vec<Span>>| {
            let mut fixture = Fixture::new(SIZE_MIN);
            for spans in batches {
                fixture.send(&batch(vec![resource_spans("web", spans)])).unwrap();
            }
            fixture.all()
        };
        let mut pieces = vec![Vec::new()];
        for (span, cut) in spans.iter().zip(cuts) {
            pieces.last_mut().unwrap().push(span.clone());
            if cut {
                pieces.push(Vec::new());
            }
        }
        prop_assert_eq!(row_of(pieces), row_of(vec![spans]));
    }
}

#[test]
fn standings_follow_flags_and_kinds() {
    let standing = |flags, kind, parent| {
        let other = span(1, 10, 0, 0, 1);
        let tested = Span { flags, kind, ..span(1, 11, parent, 0, 1) };
        let request = batch(vec![resource_spans("web", vec![other, tested])]);
        span::Parts::of(&request).unwrap().traces[0].1[1].standing
    };
    assert_eq!(standing(0, 1, 0), Standing::Root);
    assert_eq!(standing(0, 2, 99), Standing::Entry, "a server span whose parent is not here");
    assert_eq!(standing(0, 2, 10), Standing::Inner);
    assert_eq!(standing(0, 3, 99), Standing::Inner, "a client span");
    assert_eq!(standing(0x300, 3, 99), Standing::Entry);
    assert_eq!(standing(0x100, 2, 99), Standing::Inner, "its parent is local, only not here");
}

fn some_traces(count: u64) -> Vec<ResourceSpans> {
    let mut all = Vec::new();
    for trace in 0..count {
        let root = span(trace, 1, 0, 10_000 - trace, trace % 7 * 500);
        let child = span(trace, 2, 1, 10_000, 1);
        let child = if trace % 3 == 0 { failed(child) } else { child };
        all.push(resource_spans(["web", "api"][(trace % 2) as usize], vec![root]));
        all.push(resource_spans("db", if trace % 5 == 0 { vec![child] } else { vec![] }));
    }
    all
}

fn filters() -> Vec<TraceFilter> {
    let mut filters = Vec::new();
    for service in [None, Some("web"), Some("db"), Some("nobody")] {
        for errors in [false, true] {
            for slower in [None, Some(Duration::from_secs(1))] {
                for since in [None, Some(9_970 * MS)] {
                    filters.push(TraceFilter { service: service.map(str::to_owned), errors, slower, since, limit: 20 });
                }
            }
        }
    }
    filters
}

#[test]
fn filters_find_what_a_slow_search_finds() {
    let mut fixture = Fixture::new(SIZE_MIN);
    fixture.send(&batch(some_traces(100))).unwrap();
    let mut all = fixture.all();
    assert_eq!(all.len(), 100);
    all.sort_by_key(|row| std::cmp::Reverse(row.start));
    for filter in filters() {
        let matches = |row: &&TraceRow| {
            filter.service.as_ref().is_none_or(|service| row.services.contains(service))
                && (row.error || !filter.errors)
                && row.duration >= filter.slower.unwrap_or_default()
                && row.start >= filter.since.unwrap_or_default() as i64
        };
        let expected: Vec<TraceRow> = all.iter().filter(matches).take(20).cloned().collect();
        assert_eq!(fixture.store().traces(&filter).unwrap(), expected, "{filter:?}");
    }
}

#[test]
fn every_trace_is_shown_once_page_by_page() {
    let mut fixture = Fixture::new(SIZE_MIN);
    let traces = (0..2_500).map(|n| resource_spans("shop", vec![span(n, 1, 0, 2_500 - n, 1)]));
    fixture.send(&batch(traces.collect())).unwrap();
    let since = |start: u64| {
        let mut shown = Vec::new();
        fixture.store().each(start * MS, |row| shown.push(row.trace_id)).unwrap();
        shown
    };
    assert_eq!(since(0), (0..2_500).map(trace_id).collect::<Vec<_>>());
    assert_eq!(since(401), (0..2_100).map(trace_id).collect::<Vec<_>>());
    assert_eq!(since(2_501), []);
}

#[test]
fn a_full_store_stays_within_its_size_and_answers_from_indexes() {
    const SIZE: u64 = 200 << 20;
    let mut fixture = Fixture::new(SIZE);
    let text = "x".repeat(3000);
    let mut trace = 0;
    let mut newest = 0;
    // A third more than fits, so that many evictions are seen.
    for _ in 0..76 {
        let mut request = Vec::new();
        for _ in 0..100 {
            trace += 1;
            newest = trace;
            let large = |id, parent| {
                let mut span = span(trace, id, parent, trace, 1500);
                span.attributes.push(attribute("text", &text));
                span
            };
            let failing = trace % 50 == 0;
            let (root, child) = (large(1, 0), large(2, 1));
            request.push(resource_spans("web", vec![if failing { failed(root) } else { root }]));
            request.push(resource_spans(&format!("service-{}", trace % 20), vec![child, large(3, 2), large(4, 3)]));
        }
        fixture.send(&batch(request)).unwrap();
        assert!(bytes(&fixture) <= SIZE);
    }
    assert!(fs::metadata(fixture.path()).unwrap().len() > SIZE * 7 / 10, "the store was filled");

    let rows = fixture.all();
    assert!(rows.len() > 3000 && rows.len() < 9000, "{}", rows.len());
    assert_eq!(rows[0].trace_id, trace_id(newest), "the newest is there");
    let filter = TraceFilter {
        service: Some("service-10".to_owned()),
        errors: true,
        slower: Some(Duration::from_secs(1)),
        since: None,
        limit: 20,
    };
    let found = fixture.store().traces(&filter).unwrap();
    assert!(!found.is_empty() && found.iter().all(|row| row.error && row.services.len() == 2));
    for filter in filters() {
        let plan = read::plan(&fixture.store(), &filter);
        assert!(plan.contains("SEARCH") && !plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{plan}");
    }
    nothing_is_left_of_evicted_traces(&fixture);
}

/// Of the database and its log.
fn bytes(fixture: &Fixture) -> u64 {
    let len = |path: PathBuf| fs::metadata(path).map_or(0, |file| file.len());
    len(fixture.path()) + len(fixture.path().with_extension("db-wal"))
}

fn nothing_is_left_of_evicted_traces(fixture: &Fixture) {
    let db = Connection::open(fixture.path()).unwrap();
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let traces = count("SELECT count(*) FROM traces");
    assert_eq!(count("SELECT count(*) FROM spans"), 4 * traces);
    assert_eq!(count("SELECT count(*) FROM trace_services"), 2 * traces);
    assert_eq!(count("SELECT count(*) FROM resources"), 21);
    assert_eq!(count("SELECT count(*) FROM scopes"), 21);
    assert_eq!(count("SELECT count(*) FROM trace_services WHERE trace NOT IN (SELECT id FROM traces)"), 0);
}

#[test]
fn resources_and_scopes_go_with_the_last_trace_that_uses_them() {
    let mut fixture = Fixture::new(SIZE_MIN);
    for trace in 0..150 {
        let mut span = span(trace, 1, 0, trace, 1);
        span.attributes.push(attribute("text", &"x".repeat(200_000)));
        fixture.send(&batch(vec![resource_spans(&format!("pod-{trace}"), vec![span])])).unwrap();
    }
    let db = Connection::open(fixture.path()).unwrap();
    let count = |table: &str| db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0));
    let traces = count("traces").unwrap();
    assert!((8..100).contains(&traces), "{traces}");
    assert_eq!((count("resources").unwrap(), count("scopes").unwrap()), (traces, traces));
    let stored = fixture.store().trace(trace_id(149)).unwrap().unwrap();
    assert_eq!(stored.row.service, "pod-149");
}

#[test]
fn a_smaller_size_takes_effect_at_the_next_start() {
    let mut fixture = Fixture::new(4 * SIZE_MIN);
    let big = |trace| {
        let mut span = span(trace, 1, 0, trace, 1);
        span.attributes.push(attribute("text", &"x".repeat(500_000)));
        batch(vec![resource_spans("web", vec![span])])
    };
    (0..45).for_each(|trace| assert!(fixture.send(&big(trace)).is_ok()));
    fixture.file.close();
    assert!(bytes(&fixture) > 2 * SIZE_MIN);
    fixture.file = StoreFile::new(fixture.path(), SIZE_MIN);
    fixture.send(&big(45)).unwrap();
    assert!(bytes(&fixture) <= SIZE_MIN);
    assert_eq!(fixture.all()[0].trace_id, trace_id(45));
}

#[test]
fn a_batch_that_cannot_fit_is_split() {
    let mut fixture = Fixture::new(SIZE_MIN);
    let mut huge = span(1, 1, 0, 0, 1);
    huge.name = "x".repeat(SIZE_MIN as usize / 2);
    let sent = batch(vec![resource_spans("web", vec![huge])]);
    assert!(matches!(fixture.send(&sent), Err(StoreFailure::TooLarge)));
}

/// What grows beyond all that there is would be tried again for ever.
#[test]
fn a_trace_whose_text_becomes_more_than_the_file_is_split() {
    let mut fixture = Fixture::new(SIZE_MIN);
    let controls = |id| {
        let mut span = span(1, id, 0, 0, 1);
        span.attributes.push(attribute("text", &"\u{1}".repeat(900_000)));
        span
    };
    let both = batch(vec![resource_spans("web", vec![controls(1), controls(2)])]);
    assert!(matches!(fixture.send(&both), Err(StoreFailure::TooLarge)));
    for trace in 2..5 {
        let mut ordinary = span(trace, 1, 0, 0, 1);
        ordinary.name = "x".repeat(900_000);
        fixture.send(&batch(vec![resource_spans("web", vec![ordinary])])).unwrap();
    }
    fixture.send(&batch(vec![resource_spans("web", vec![controls(1)])])).expect("older ones made room");
    assert!(listed(&fixture.path()).contains(&1));
}

/// In halves where it is too large, as its worker does it.
fn send_divided(fixture: &mut Fixture, spans: &[Span]) {
    match fixture.send(&batch(vec![resource_spans("web", spans.to_vec())])) {
        Ok(_) => {}
        Err(StoreFailure::TooLarge) if spans.len() > 1 => {
            let (first, rest) = spans.split_at(spans.len() / 2);
            send_divided(fixture, first);
            send_divided(fixture, rest);
        }
        Err(other) => panic!("{} spans: {other:?}", spans.len()),
    }
}

#[test]
fn rows_that_share_no_page_are_stored_or_divided() {
    let mut fixture = Fixture::new(SIZE_MIN);
    let spans: Vec<Span> = (1..=1300)
        .map(|id| {
            let mut span = span(1, id, 0, 0, 1);
            span.attributes.push(attribute("text", &"\u{1}".repeat(580)));
            span
        })
        .collect();
    send_divided(&mut fixture, &spans);
    fixture.send(&batch(vec![resource_spans("web", vec![span(2, 1, 0, 0, 1)])])).expect("it goes on");
    assert!(listed(&fixture.path()).contains(&2));
}

/// Of a trace that is as large as the file the later part pushes out the earlier one, as of any old trace.
#[test]
fn a_trace_that_makes_room_for_itself_says_that_it_is_incomplete() {
    let mut fixture = Fixture::new(SIZE_MIN);
    let large = |id| {
        let mut span = span(1, id, 0, 0, 1);
        span.name = "n".repeat(900_000);
        span
    };
    for id in 1..=8 {
        fixture.send(&batch(vec![resource_spans("web", vec![large(id)])])).unwrap();
    }
    fixture.file.close();
    let row = fixture.store().trace(trace_id(1)).unwrap().unwrap().row;
    assert!(row.span_count < 8, "{} are too many for the file", row.span_count);
    assert_eq!(row.incomplete.as_deref(), Some("evicted"));
}

#[test]
fn a_damaged_file_is_moved_aside() {
    let one = batch(vec![resource_spans("web", vec![span(1, 1, 0, 0, 1)])]);
    let damages: [fn(&Path); 2] = [
        |path| fs::write(path, "not a database, but something long enough to be taken for one".repeat(100)).unwrap(),
        |path| {
            // The header stays, the tables are gone.
            let mut bytes = fs::read(path).unwrap();
            bytes[100..].fill(0xa5);
            fs::write(path, bytes).unwrap();
        },
    ];
    for damage in damages {
        let mut fixture = Fixture::new(SIZE_MIN);
        fixture.send(&one).unwrap();
        fixture.file.close();
        damage(&fixture.path());
        fixture.send(&one).unwrap();
        assert_eq!(fixture.all().len(), 1);
        let files = fs::read_dir(fixture.path().parent().unwrap()).unwrap();
        let names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.iter().any(|name| name.starts_with("tailkeep.db.damaged-")), "{names:?}");
    }
}

#[test]
fn foreign_and_newer_files_are_left_alone() {
    let one = batch(vec![resource_spans("web", vec![span(1, 1, 0, 0, 1)])]);
    for (setup, expected) in [
        ("CREATE TABLE notes (text)", "another program"),
        ("PRAGMA application_id = 0x746b7374; PRAGMA user_version = 99", "version 99"),
    ] {
        let mut fixture = Fixture::new(SIZE_MIN);
        fs::create_dir_all(fixture.path().parent().unwrap()).unwrap();
        Connection::open(fixture.path()).unwrap().execute_batch(setup).unwrap();
        let error = fixture.send(&one).unwrap_err();
        let StoreFailure::Later(reason) = error else { panic!("{error:?}") };
        assert!(reason.contains(expected), "{reason}");
        assert!(Store::open_read(&fixture.path()).err().unwrap().contains(expected));
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_tried_again() {
    let mut fixture = Fixture::new(SIZE_MIN);
    let one = batch(vec![resource_spans("web", vec![span(1, 1, 0, 0, 1)])]);
    let blocked = fixture.folder.path().join("data");
    fs::write(&blocked, "a file where the folder should be").unwrap();
    assert!(matches!(fixture.send(&one), Err(StoreFailure::Later(_))));
    assert!(Store::open_read(&fixture.path()).err().unwrap().contains("no store"));
    fs::remove_file(&blocked).unwrap();
    fixture.send(&one).unwrap();
}

fn numbered(trace: u64) -> Vec<u8> {
    batch(vec![resource_spans("web", vec![span(trace, 1, 0, trace, 1)])])
}

fn listed(path: &Path) -> Vec<u64> {
    let traces =
        Store::open_read(path).and_then(|store| store.traces(&TraceFilter { limit: 99, ..Default::default() }));
    let number = |row: &TraceRow| u64::from_be_bytes(row.trace_id.0[8..].try_into().unwrap());
    let mut numbers: Vec<u64> = traces.unwrap_or_default().iter().map(number).collect();
    numbers.sort();
    numbers
}

/// SQLite would write on to a file that nobody finds any more.
#[test]
fn a_file_that_was_taken_away_is_made_anew() {
    let beside = |path: &Path, suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    let remove = |path: &Path| {
        ["", "-wal", "-shm", ".lock"].iter().for_each(|suffix| drop(fs::remove_file(beside(path, suffix))));
    };
    /// What becomes of it, the traces that are listed then, and those in the file `.old`.
    type Case<'a> = (&'a dyn Fn(&Path), &'a [u64], &'a [u64]);
    let cases: [Case<'_>; 6] = [
        (&remove, &[2, 3], &[]),
        (&|path| fs::remove_file(path).unwrap(), &[2, 3], &[]),
        (&|path| fs::rename(path, beside(path, ".old")).unwrap(), &[2, 3], &[1]),
        (
            &|path| fs::rename(path.parent().unwrap(), path.parent().unwrap().with_extension("gone")).unwrap(),
            &[2, 3],
            &[],
        ),
        (&|path| fs::remove_file(beside(path, "-wal")).unwrap(), &[1, 2, 3], &[]),
        (&|path| fs::remove_file(beside(path, ".lock")).unwrap(), &[1, 2, 3], &[]),
    ];
    for (at, (take_away, now, old)) in cases.into_iter().enumerate() {
        let mut fixture = Fixture::new(SIZE_MIN);
        fixture.send(&numbered(1)).unwrap();
        take_away(&fixture.path());
        fixture.send(&numbered(2)).unwrap();
        fixture.send(&numbered(3)).unwrap();
        assert_eq!(listed(&fixture.path()), now, "case {at}, while it is written");
        fixture.file.close();
        assert_eq!(listed(&fixture.path()), now, "case {at}");
        let aside = beside(&fixture.path(), ".old");
        assert_eq!(if aside.exists() { listed(&aside) } else { vec![] }, old, "case {at}");
    }
}

#[test]
fn a_file_that_somebody_overwrote_or_cut_is_moved_aside() {
    let garbage: Vec<u8> = (0..200_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let damages: [&dyn Fn(&Path); 2] = [&|path| fs::write(path, &garbage).unwrap(), &|path| {
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(5000).unwrap()
    }];
    for damage in damages {
        let mut fixture = Fixture::new(SIZE_MIN);
        for trace in 0..20 {
            fixture.send(&numbered(trace)).unwrap();
        }
        // Without its log the file is what there is.
        Connection::open(fixture.path()).unwrap().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        fixture.send(&numbered(20)).unwrap();
        damage(&fixture.path());
        fixture.send(&numbered(21)).unwrap();
        fixture.send(&numbered(22)).unwrap();
        let found = listed(&fixture.path());
        assert!(found.ends_with(&[21, 22]), "{found:?}");
        let sound: String = Connection::open(fixture.path())
            .unwrap()
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(sound, "ok");
    }
}

/// A pager that nobody scrolls keeps the log from being used again.
#[test]
fn a_reader_that_stays_does_not_make_the_log_grow_without_a_bound() {
    let mut fixture = Fixture::new(SIZE_MIN);
    let big = |trace| {
        let mut span = span(trace, 1, 0, trace, 1);
        span.attributes.push(attribute("text", &"x".repeat(300_000)));
        batch(vec![resource_spans("web", vec![span])])
    };
    fixture.send(&big(0)).unwrap();
    let reader = Connection::open(fixture.path()).unwrap();
    let mut statement = reader.prepare("SELECT id FROM traces").unwrap();
    let mut rows = statement.query([]).unwrap();
    assert!(rows.next().unwrap().is_some());
    let mut trace = 0;
    let refused = loop {
        trace += 1;
        assert!(bytes(&fixture) <= SIZE_MIN, "{}", bytes(&fixture));
        match fixture.send(&big(trace)) {
            Ok(_) => assert!(trace < 100, "it grows for ever"),
            Err(failure) => break failure,
        }
    };
    let StoreFailure::Later(reason) = refused else { panic!("{refused:?}") };
    assert!(trace > 3 && reason.contains("somebody reads it"), "{trace}: {reason}");
    drop(rows);
    fixture.send(&big(trace)).unwrap();
    assert!(listed(&fixture.path()).contains(&trace));
    assert!(bytes(&fixture) <= SIZE_MIN);
}

/// One trace a span, ids at random: each changes pages of its own.
#[test]
fn many_small_traces_stay_within_the_size() {
    let mut fixture = Fixture::new(SIZE_MIN);
    for round in 0..12 {
        let spans = (0..4000).map(|n| span(round * 4000 + n + 1, 1, 0, n, 1)).collect();
        fixture.send(&batch(vec![resource_spans("web", spans)])).unwrap();
        assert!(bytes(&fixture) <= SIZE_MIN, "{}", bytes(&fixture));
    }
    assert!(fixture.all().len() > 4000);
}

fn field(number: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, number, payload);
    out
}

fn count(fixture: &Fixture, what: &str) -> i64 {
    let db = Connection::open(fixture.path()).unwrap();
    db.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get(0)).unwrap()
}

/// One span in each of many scopes of one large resource, and each a trace of its own or all in one.
fn scopes_of_one_resource(scopes: u64, traces: u64) -> Vec<u8> {
    let attributes = (0..2000).map(|n| attribute(&format!("attribute.{n}"), &"x".repeat(90))).collect();
    let mut resource = field(1, &Resource { attributes, ..Default::default() }.encode_to_vec());
    for n in 1..=scopes {
        let scope = field(1, &field(1, format!("scope-{n}").as_bytes()));
        let span = span(n % traces, n, 0, n, 1).encode_to_vec();
        resource.extend(field(2, &[scope, field(2, &span)].concat()));
    }
    field(1, &resource)
}

/// In the file, in what is read for it, and in what is written of it.
#[test]
fn a_large_resource_is_handled_once_however_many_scopes_share_it() {
    let mut fixture = Fixture::new(4 * SIZE_MIN);
    let body = scopes_of_one_resource(1000, 1);
    let before = crate::otlp::wire::work::done();
    fixture.send(&body).unwrap();
    let visits = crate::otlp::wire::work::done() - before;
    assert!(visits < body.len() as u64, "{visits} fields were looked at in {} bytes", body.len());
    assert_eq!((count(&fixture, "resources"), count(&fixture, "scopes")), (1, 1000));
    let stored = bytes(&fixture);
    assert!(stored < 8 * body.len() as u64, "{} bytes became {stored}", body.len());
    let read = spans_of(&fixture.store(), trace_id(0));
    assert!(read.len() < 2 * body.len(), "{} bytes became {}", body.len(), read.len());
    assert_eq!(ExportTraceServiceRequest::decode(&read[..]).unwrap().resource_spans[0].scope_spans.len(), 1000);
}

/// A batch that takes several transactions, each of which may make room.
#[test]
fn every_span_has_its_scope_and_resource_whatever_was_deleted_before() {
    let mut fixture = Fixture::new(SIZE_MIN);
    for round in 0..8 {
        let spans = (0..400).map(|n| {
            let mut span = span(round * 400 + n, 1, 0, n, 1);
            span.attributes.push(attribute("text", &"x".repeat(4000)));
            resource_spans(&format!("pod-{}", n % 40), vec![span])
        });
        fixture.send(&batch(spans.collect())).unwrap();
    }
    assert!(count(&fixture, "traces") < 2000, "there was no room for all");
    assert_eq!(count(&fixture, "spans"), count(&fixture, "span_list"));
    assert_eq!(count(&fixture, "scopes WHERE resource NOT IN (SELECT id FROM resources)"), 0);
}

/// The service of a resource stands in the row of each trace.
#[test]
fn a_long_service_name_is_cut_where_it_is_repeated() {
    let mut fixture = Fixture::new(4 * SIZE_MIN);
    let name = "shop".repeat(50_000);
    let spans = (0..500).map(|n| span(n, 1, 0, n, 1)).collect();
    let body = batch(vec![resource_spans(&name, spans)]);
    fixture.send(&body).unwrap();
    assert!(bytes(&fixture) < 4 << 20, "{}", bytes(&fixture));
    let filter = TraceFilter { service: Some(name.clone()), limit: 1000, ..Default::default() };
    assert_eq!(fixture.store().traces(&filter).unwrap().len(), 500);
    let whole = count(&fixture, &format!("span_list WHERE resource ->> 'service.name' = '{name}'"));
    assert_eq!(whole, 500);
}

/// What is around spans is read once, not for each of them.
#[test]
fn the_work_grows_with_the_batch() {
    let span = |n: u64| [field(1, &[1; 16]), field(2, &n.to_be_bytes()), field(5, b"GET /")].concat();
    let visits = |spans: u64| {
        let spans: Vec<u8> = (1..=spans).flat_map(|n| field(2, &span(n))).collect();
        let batch = field(1, &[field(1, b""), field(2, &[field(1, b""), spans].concat())].concat());
        let before = crate::otlp::wire::work::done();
        Fixture::new(64 << 20).send(&batch).unwrap();
        crate::otlp::wire::work::done() - before
    };
    let (few, many) = (visits(500), visits(4000));
    assert!(few > 500 && many < 9 * few, "{few} visits of 500 spans, {many} of 4,000");
}
