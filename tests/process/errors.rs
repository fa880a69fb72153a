//! What a policy counts as an error is one thing for the verdict, for `why` and for the request metrics, and what leaves
//! says what its sender said.

use super::collector::{POLICY, Setup, eventually};
use super::grpc::Grpc;
use super::sink::Sink;
use super::traffic::{Trace, assert_same, request, span};
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use prost::Message;
use std::fs;
use tailkeep::trace::Signal;

const ERRORS: &str = "errors:
  except: [{ service: payment, name: POST /pay }]
  also: { kind: server, attributes: { http.response.status_code: 503 } }
rules:";

/// The root answers 503 and does not mark itself.
fn unmarked() -> Trace {
    let mut trace = Trace::ok();
    let root = &mut trace.requests[0].resource_spans[0].scope_spans[0].spans[0];
    let status = root.attributes.iter_mut().find(|attribute| attribute.key == "http.response.status_code");
    status.expect("a server span").value = Some(AnyValue { value: Some(Value::IntValue(503)) });
    trace
}

#[test]
fn verdicts_and_request_metrics_count_the_same_errors() {
    let sink = Sink::start();
    let tailkeep = Setup::new().policy(&POLICY.replace("rules:", ERRORS)).otlp("stub", &sink).start();
    let (left_out, unmarked) = (Trace::failed(), unmarked());
    tailkeep.send_all(&[left_out.clone(), unmarked.clone()]);
    let seen = tailkeep.wait_for_verdict(&left_out, "dropped")["seen"].clone();
    assert_eq!((&seen["errors"], &seen["errors_by_status"]), (&0.into(), &1.into()), "{seen}");
    let kept = tailkeep.wait_for_verdict(&unmarked, "kept");
    assert_eq!((&kept["rule"], &kept["seen"]["errors"]), (&"keep-errors".into(), &1.into()), "{kept}");
    let calls = |service: &str, status: &str| {
        let labels = [format!("service_name=\"{service}\""), format!("status_code=\"STATUS_CODE_{status}\"")];
        let labels = labels.each_ref().map(String::as_str);
        tailkeep.accounts().sum("traces_span_metrics_calls_total", &labels)
    };
    assert_eq!((calls("payment", "ERROR"), calls("payment", "UNSET")), (0.0, 2.0));
    assert_eq!((calls("gateway", "ERROR"), calls("gateway", "UNSET")), (1.0, 1.0));
    eventually("it has left", || (sink.traces().len() == 1).then_some(()));
    assert_same(&sink.spans(), &unmarked.placed());
    // A policy without `errors`: what was left out is an error again, as soon as the trace is judged.
    fs::write(tailkeep.path().join("policy.yaml"), POLICY).unwrap();
    tailkeep.wait_for_log("new policy in force");
    let root = &left_out.requests[0].resource_spans[0].scope_spans[0].spans[0];
    let late = request("payment", vec![span(left_out.id, Some(root), "late", 1)]);
    assert_eq!(Grpc::connect(tailkeep.ports.grpc).export(Signal::Traces, &late.encode_to_vec()).code, 0);
    assert_eq!(tailkeep.wait_for_verdict(&left_out, "kept")["rule"], "keep-errors");
    tailkeep.stop();
}
