use super::*;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;
use tempfile::TempDir;

fn batch(name: &str) -> Batch {
    let whole = Span { trace_id: vec![1; 16], span_id: vec![2; 8], name: name.into(), ..Default::default() };
    let without_id = Span { name: name.into(), ..Default::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![whole, without_id], ..Default::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..Default::default() }];
    let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
    Batch { signal: Signal::Traces, body: body.into(), items: 2 }
}

#[tokio::test]
async fn what_becomes_of_a_batch_is_said_as_the_loop_understands_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("data/tailkeep.db");
    assert!(StoreSink::new(StoreSettings { path: path.clone(), size: 1 }).is_err());
    let mut sink = StoreSink::new(StoreSettings { path: path.clone(), size: SIZE_MIN }).unwrap();
    assert_eq!(
        sink.send(&batch("one")).await,
        Ok(Sent::without(1, Discard::Rejected, "spans that the store cannot read"))
    );
    let malformed = Batch { body: "no protobuf".into(), ..batch("x") };
    assert!(matches!(sink.send(&malformed).await, Err(SendError::Refused { .. })));
    let huge = batch(&"x".repeat(SIZE_MIN as usize / 2));
    assert!(matches!(sink.send(&huge).await, Err(SendError::Split { .. })));
    let mut second = StoreSink::new(StoreSettings { path, size: SIZE_MIN }).unwrap();
    let refused = second.send(&batch("two")).await;
    assert!(matches!(&refused, Err(SendError::Retry { reason, .. }) if reason.contains("tailkeep.db")), "{refused:?}");
    sink.close().await;
    assert!(second.send(&batch("two")).await.is_ok());
}
