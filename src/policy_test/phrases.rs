//! Examples of the language of cases, and its words for those of other tools.

use crate::yaml::{Example, FileFormat, Foreign, Phrases, row};

pub(super) const PHRASES: &Phrases = &Phrases { examples: EXAMPLES, foreign: FOREIGN, formats: FORMATS };

const EXAMPLES: &[Example] = &[
    ("a file of cases", "cases: [{ name: errors, trace: { status: error }, expect: { rule: keep-errors } }]"),
    ("`cases`", "cases: [{ name: errors, trace: { status: error }, expect: { rule: keep-errors } }]"),
    ("a case", "{ name: errors, trace: { status: error }, expect: { rule: keep-errors } }"),
    ("`name`", "name: a failed payment"),
    ("`trace`", "trace: { service: shop, status: error }"),
    ("`file`", "file: traces/payment.json"),
    ("`trace_id`", "trace_id: \"4bf92f3577b34da6a3ce929d0e0e4736\""),
    ("`limits_reached`", "limits_reached: keep-errors"),
    ("`incomplete`", "incomplete: limit"),
    ("`expect`", "expect: { rule: keep-errors, keep: all }"),
    ("`rule`", "rule: keep-errors"),
    ("`keep`", "keep: 5%"),
    ("a span", "{ service: shop, name: GET /cart, duration: 300ms }"),
    ("`service`", "service: shop"),
    ("`kind`", "kind: server"),
    ("`status`", "status: error"),
    ("`status_message`", "status_message: context canceled"),
    ("`duration`", "duration: 300ms"),
    ("`after`", "after: 50ms"),
    ("`attributes`", "attributes: { http.route: /pay }"),
    ("`resource`", "resource: { k8s.namespace.name: shop }"),
    ("`events`", "events: [exception]"),
    ("`trace_state`", "trace_state: { vendor: value }"),
    ("`parent`", "parent: remote"),
    ("`times`", "times: 100"),
    ("`spans`", "spans: [{ service: payment, status: error }]"),
];

/// The first row that fits speaks.
const FOREIGN: &[Foreign] = &[
    // Of a case.
    row(&["title", "description", "case", "it"], "expect", "write `name: …`"),
    row(&["spans", "input", "given"], "expect", "write `trace: …`, a span or a list of spans"),
    row(&["expected", "want", "then", "assert"], "expect", "write `expect: { rule: keep-errors, keep: all }`"),
    row(&["rule", "keep"], "expect", "write it under `expect:`"),
    row(
        &["decision", "verdict", "sampled", "action"],
        "keep",
        "write `keep: all`, `keep: none`, or a share like `keep: 5%`",
    ),
    // Of a span.
    row(&["error", "failed"], "status", "write `status: error`"),
    row(&["children", "calls"], "spans", "write `spans: [ … ]`"),
    row(&["count", "repeat"], "times", "write `times: 100`"),
    row(&["start", "offset", "delay"], "after", "write `after: 50ms`, from the start of the span above"),
    row(&["operation", "span_name", "operation_name"], "service", "write `name: …`"),
    row(&["service.name", "service_name"], "service", "write `service: shop`"),
    row(&["tags", "attribute"], "service", "write `attributes: { http.route: /pay }`"),
    row(&["tracestate"], "service", "write `trace_state: { vendor: value }`"),
    // Of `keep`.
    row(&["drop", "discard", "false"], "none", "write `none`"),
    row(&["keep", "true"], "all", "write `all`"),
];

const FORMATS: &[FileFormat] = &[FileFormat {
    keys: &["version", "rules", "otherwise", "wait"],
    title: "this is a policy, not a file of cases",
    help: "name the policy first, and its cases with `--tests`",
}];
