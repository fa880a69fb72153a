use super::*;
use crate::admin::AdminApi;
use crate::config::Host;
use crate::deliver::sink::{Batch, SendResult, Sent, Sink};
use crate::prometheus::PageReader;
use crate::receive::{HopHeaders, Intake};
use crate::trace::TraceId;
use http::HeaderMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::Mutex;

const CONFIG: &str = "
receive: { grpc: 127.0.0.1:0, http: 127.0.0.1:0 }
health: { listen: off }
admin: { listen: off }
memory: 32MiB
";

/// Keeps what it gets, or fails as code with a defect does.
struct TestSink(Option<Arc<Mutex<Vec<u8>>>>);

impl Sink for TestSink {
    fn takes(&self, signal: Signal) -> bool {
        signal == Signal::Traces
    }

    fn send<'a>(&'a mut self, batch: &'a Batch) -> Pin<Box<dyn Future<Output = SendResult> + Send + 'a>> {
        let Some(taken) = &self.0 else { panic!("as a defect does") };
        taken.lock().unwrap().extend_from_slice(&batch.body);
        Box::pin(async { Ok(Sent::default()) })
    }

    fn close<'a>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async {})
    }
}

fn failed_trace(n: u8) -> Vec<u8> {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
    let status = Some(Status { code: 2, ..Status::default() });
    let span = Span { trace_id: vec![n; 16], span_id: vec![n; 8], status, ..Span::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

async fn assembled(sinks: Vec<NamedSink>) -> App {
    let host = Host::here();
    let (config, problems) = Config::parse(Path::new("x.yaml"), CONFIG, |_| None, &host);
    let config = config.unwrap_or_else(|| panic!("{problems:?}"));
    let active_policy = load_policy(&config.policy, &[]).expect("the built-in one");
    App::assemble(config, active_policy, sinks).await.expect("free ports")
}

/// An alert on its growth would not see a counter that begins at its first value.
#[tokio::test]
async fn what_no_sink_takes_is_counted_from_0() {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    let sink = NamedSink { name: "here".into(), sink: Box::new(TestSink(Some(Arc::default()))), rules: None };
    let app = assembled(vec![sink]).await;
    let service = app.admin_service();
    let counted = || {
        let mut page = String::new();
        service.metrics(PageReader::Scraper, &mut page).expect("a text grows");
        let lines = page.lines().filter(|line| line.contains("sink=\"none\"") && line.contains("\"no_sink\""));
        lines.map(|line| line.rsplit_once(' ').expect("a value").1.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(counted(), ["0", "0", "0"], "of every signal");
    let scope_logs = vec![ScopeLogs { log_records: vec![LogRecord::default(); 7], ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    let body = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
    service.pipeline.accept(Signal::Logs, &body, HopHeaders::of(&HeaderMap::new())).expect("valid");
    let mut after = counted();
    after.sort();
    assert_eq!(after, ["0", "0", "7"]);
}

/// Nobody asks it to stop: it notices, is not ready any more, delivers what it can, and says what ended.
#[tokio::test(start_paused = true)]
async fn a_part_that_ends_by_a_defect_ends_the_process_and_what_others_can_deliver_is() {
    let taken: Arc<Mutex<Vec<u8>>> = Arc::default();
    let sinks = [("healthy", Some(taken.clone())), ("broken", None)].map(|(name, taken)| NamedSink {
        name: name.into(),
        sink: Box::new(TestSink(taken)),
        rules: None,
    });
    let app = assembled(sinks.into()).await;
    let service = app.admin_service();
    for n in 1..=50 {
        service.pipeline.accept(Signal::Traces, &failed_trace(n), HopHeaders::of(&HeaderMap::new())).expect("valid");
        assert!(service.pipeline.keep(TraceId([n; 16])), "so that nothing waits for its verdict");
    }
    let ended = tokio::time::timeout(Duration::from_secs(60), app.run(pending())).await;
    assert_eq!(ended, Ok(Err("the sink broken".to_owned())));
    assert!(!service.ready.load(Relaxed));
    let taken = taken.lock().unwrap();
    for n in 1..=50 {
        assert!(taken.windows(16).any(|bytes| bytes == [n; 16]), "trace {n} was not delivered");
    }
}
