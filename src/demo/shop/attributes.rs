//! Names and attributes of the shop's spans, after OpenTelemetry's semantic conventions: the stable
//! names, and from Python the old HTTP names, which its instrumentation still sends.

use super::{Service, ShopStep, Work};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{Span, Status, status::StatusCode};

pub(super) fn resource(service: Service) -> Resource {
    let name = service.name();
    let attributes = vec![
        text("service.name", name),
        text("service.namespace", "shop"),
        text("service.version", "1.4.2"),
        text("deployment.environment.name", "demo"),
        text("host.name", "demo-node-1"),
        text("k8s.pod.name", &format!("{name}-6c9d7b5f48-demo1")),
        text("telemetry.sdk.name", "opentelemetry"),
        text("telemetry.sdk.language", service.language()),
        text("telemetry.sdk.version", "1.38.0"),
    ];
    Resource { attributes, ..Resource::default() }
}

/// Sets the name, the kind and the attributes of a span. `random` varies the values that are many.
pub(super) fn describe(span: &mut Span, step: &ShopStep, random: u64) {
    span.kind = step.work.kind() as i32;
    span.name = match step.work {
        Work::Serve { method, route } => format!("{method} {route}"),
        Work::Call { method, .. } => method.to_owned(),
        Work::Query { operation, target, .. } => format!("{operation} {target}"),
        Work::Publish { topic } => format!("send {topic}"),
        Work::Consume { topic } => format!("process {topic}"),
        Work::Compute { name } => name.to_owned(),
    };
    span.attributes = match step.work {
        Work::Serve { method, route } => serve(step.service, method, route, random),
        Work::Call { method, host, route } => call(step.service, method, host, route, random),
        Work::Query { system, operation, target } => query(system, operation, target),
        Work::Publish { topic } => message("send", topic, random),
        Work::Consume { topic } => message("process", topic, random),
        Work::Compute { .. } => vec![text("code.function.name", &span.name.replace(' ', "_"))],
    };
    if let Some(key) = status_key(step) {
        span.attributes.push(number(key, 200));
    }
}

/// Marks a span as failed: by itself, or because a step that it needs has failed.
pub(super) fn fail(span: &mut Span, step: &ShopStep, broken: bool) {
    let (kind, message) = match step.work {
        Work::Serve { .. } | Work::Compute { .. } => ("InternalError", "unexpected state"),
        Work::Call { .. } => ("ConnectionError", "connection reset by peer"),
        Work::Query { .. } => ("QueryTimeout", "statement timeout"),
        Work::Publish { .. } | Work::Consume { .. } => ("BrokerError", "partition has no leader"),
    };
    let message = if broken { message } else { "a dependency failed" };
    span.status = Some(Status { code: StatusCode::Error as i32, message: message.to_owned() });
    if let Some(key) = status_key(step) {
        span.attributes.retain(|attribute| attribute.key != key);
        span.attributes.push(number(key, if broken { 500 } else { 502 }));
    }
    if broken {
        span.attributes.push(text("error.type", kind));
        span.events.push(Event {
            time_unix_nano: span.end_time_unix_nano,
            name: "exception".into(),
            attributes: vec![text("exception.type", kind), text("exception.message", message)],
            ..Event::default()
        });
    }
}

/// Under which key the span carries its HTTP status code, if it is an HTTP span.
fn status_key(step: &ShopStep) -> Option<&'static str> {
    match step.work {
        Work::Serve { .. } | Work::Call { .. } if old_names(step.service) => Some("http.status_code"),
        Work::Serve { .. } | Work::Call { .. } => Some("http.response.status_code"),
        _ => None,
    }
}

fn old_names(service: Service) -> bool {
    service.language() == "python"
}

fn serve(service: Service, method: &str, route: &str, random: u64) -> Vec<KeyValue> {
    let (method_key, path_key) = match old_names(service) {
        true => ("http.method", "http.target"),
        false => ("http.request.method", "url.path"),
    };
    vec![
        text(method_key, method),
        text("http.route", route),
        text(path_key, &path(route, random)),
        text("network.protocol.version", "1.1"),
        text("client.address", &format!("10.0.{}.{}", random % 4, random % 251)),
    ]
}

fn call(service: Service, method: &str, host: &str, route: &str, random: u64) -> Vec<KeyValue> {
    let (method_key, url_key) = match old_names(service) {
        true => ("http.method", "http.url"),
        false => ("http.request.method", "url.full"),
    };
    vec![
        text(method_key, method),
        text(url_key, &format!("http://{host}:8080{}", path(route, random))),
        text("server.address", host),
        number("server.port", 8080),
    ]
}

fn query(system: &str, operation: &str, target: &str) -> Vec<KeyValue> {
    vec![
        text("db.system.name", system),
        text("db.operation.name", operation),
        text("db.collection.name", target),
        text("server.address", &format!("{system}.shop.svc")),
    ]
}

fn message(operation: &str, topic: &str, random: u64) -> Vec<KeyValue> {
    vec![
        text("messaging.system", "kafka"),
        text("messaging.operation.name", operation),
        text("messaging.destination.name", topic),
        text("messaging.destination.partition.id", &(random % 12).to_string()),
    ]
}

/// A route with its parameter filled in.
fn path(route: &str, random: u64) -> String {
    match (route.find('{'), route.find('}')) {
        (Some(start), Some(end)) => format!("{}{}{}", &route[..start], random % 5000, &route[end + 1..]),
        _ => route.to_owned(),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
