//! Examples of the policy language, and its words for those of other tools.

use crate::yaml::{Example, FileFormat, Foreign, Phrases, REFINERY_CONFIGURATION, row};

pub(super) const PHRASES: &Phrases = &Phrases { examples: EXAMPLES, foreign: FOREIGN, formats: FORMATS };

const EXAMPLES: &[Example] = &[
    ("a policy", "{ version: 1, otherwise: { keep: 1% } }"),
    ("`version`", "version: 1"),
    ("`wait`", "wait: { after_root: 6s }"),
    ("`errors`", "errors: { except: [{ attributes: { http.response.status_code: 404 } }] }"),
    ("`except`", "except: [{ attributes: { http.response.status_code: 404 } }]"),
    ("an item of `except`", "{ attributes: { http.response.status_code: 404 } }"),
    ("`also`", "also: [{ kind: server, attributes: { http.response.status_code: { at_least: 500 } } }]"),
    ("an item of `also`", "{ kind: server, attributes: { http.response.status_code: { at_least: 500 } } }"),
    ("`limits`", "limits: { incidents: 200/s }"),
    ("a limit", "{ limit: 200/s, then: 5% }"),
    ("`rules`", "rules: [{ name: keep-errors, when: { error: true }, keep: all }]"),
    ("`otherwise`", "otherwise: { keep: 1% }"),
    ("a rule", "{ name: keep-errors, when: { error: true }, keep: all }"),
    ("`name`", "name: keep-errors"),
    ("`keep`", "keep: 5%"),
    ("`limit`", "limit: 200/s"),
    ("`limit_total`", "limit_total: 1000/s"),
    ("`then`", "then: 5%"),
    ("`for_each`", "for_each: entry.service"),
    ("`when`", "when: { error: true }"),
    ("`not`", "not: { error: true }"),
    ("`any_of`", "any_of: [{ error: true }, { duration: { at_least: 1s } }]"),
    ("an item of `any_of`", "{ error: true }"),
    ("`error`", "error: true"),
    ("`failed`", "failed: true"),
    ("`duration`", "duration: { at_least: 500ms }"),
    ("`envelope`", "envelope: { at_least: 10s }"),
    ("`span_count`", "span_count: { at_least: 100 }"),
    ("`services`", "services: [checkout, payment]"),
    ("`incomplete`", "incomplete: [no_entry]"),
    ("`trace_state`", "trace_state: { vendor: value }"),
    ("`root`", "root: { service: checkout }"),
    ("`entry`", "entry: { service: checkout }"),
    ("`any_span`", "any_span: { service: checkout }"),
    ("`service`", "service: checkout"),
    ("`kind`", "kind: server"),
    ("`status`", "status: error"),
    ("`status_message`", "status_message: \"context canceled*\""),
    ("`events`", "events: exception"),
    ("`attributes`", "attributes: { http.route: /pay }"),
    ("`resource`", "resource: { k8s.namespace.name: shop }"),
    ("`matches`", "matches: \"^GET /\""),
    ("`exists`", "exists: true"),
];

/// The first row that fits speaks.
const FOREIGN: &[Foreign] = &[
    // Keys of a rule.
    row(&["drop", "discard"], "when", "write `keep: none`"),
    row(&["action", "decision"], "when", "write `keep: all`, `keep: none`, or a share like `keep: 10%`"),
    row(
        &[
            "sample",
            "sample_rate",
            "sampling",
            "sampling_percentage",
            "probability",
            "probabilistic",
            "percentage",
            "ratio",
        ],
        "when",
        "write a share: `keep: 10%`",
    ),
    row(&["samplerate", "goalsamplerate"], "when", "a rate of 10 is `keep: 10%`, and of 1 `keep: all`"),
    row(&["sampler"], "when", "write a share, `keep: 10%`, or a `limit` with `for_each`"),
    row(&["rate_limit", "rate_limiting", "spans_per_second", "max_per_second"], "when", "write `limit: 200/s`"),
    row(&["rate"], "limit_total", "write `limit: 200/s`"),
    row(&["description", "comment"], "when", "write `why: …`"),
    row(
        &[
            "if",
            "where",
            "match",
            "filter",
            "condition",
            "conditions",
            "scope",
            "type",
            "and",
            "or",
            "latency",
            "status_code",
        ],
        "when",
        "conditions go under `when:`, like `when: { error: true }`",
    ),
    // Conditions on a trace.
    row(
        &["all_of", "all", "and"],
        "any_of",
        "all conditions of one `when` must hold: write them side by side, without this key",
    ),
    row(&["or", "any", "one_of"], "any_of", "write `any_of: [{ error: true }, { duration: { at_least: 1s } }]`"),
    row(&["status_code"], "any_of", "write `error: true`; a status of HTTP is an attribute of a span"),
    row(&["service.name", "service_name"], "any_of", "write `services: checkout`"),
    row(
        &["attribute", "string_attribute", "numeric_attribute", "boolean_attribute", "tags", "field", "fields"],
        "any_of",
        "write `any_span: { attributes: { KEY: value } }`",
    ),
    row(
        &["latency", "min_latency", "latency_ms", "duration_ms", "threshold", "threshold_ms", "slow", "slower"],
        "duration",
        "write `duration: { at_least: 500ms }`",
    ),
    // Conditions on a span.
    row(&["service.name", "service_name"], "attributes", "write `service: checkout`"),
    row(
        &["status_code", "status.code"],
        "attributes",
        "write `status: error`; a status of HTTP is under `attributes:`",
    ),
    row(
        &["status.message", "status_description", "message", "otel.status_description"],
        "attributes",
        "write `status_message: \"context canceled*\"`",
    ),
    row(&["span_kind", "span.kind"], "attributes", "write `kind: server`"),
    row(&["operation", "operation_name", "span_name", "span.name"], "attributes", "write `name: \"GET /*\"`"),
    row(&["attribute", "tags", "string_attribute"], "attributes", "write `attributes: { KEY: value }`"),
    // Ranges.
    row(
        &["min", "min_ms", "from", "gt", "gte", "ge", ">", ">=", "over", "above", "more_than", "threshold_ms"],
        "at_least",
        "write `at_least:`, a bound that belongs to the range; the upper one is `below:`",
    ),
    row(
        &["max", "max_ms", "at_most", "to", "lt", "lte", "le", "<", "<=", "under", "less_than", "upper_threshold_ms"],
        "below",
        "write `below:`, a bound that does not belong to the range; the lower one is `at_least:`",
    ),
    // Expressions.
    row(
        &["regex", "regexp", "pattern", "match", "re", "like", "glob"],
        "matches",
        "write `matches: \"^GET /\"`, an expression; a text with `*` needs no key",
    ),
    // Words for `keep`, `kind`, `status` and `for_each`.
    row(&["drop", "discard", "never", "no", "false"], "none", "write `none`"),
    row(&["keep", "always", "yes", "true", "always_sample"], "all", "write `all`"),
    row(&["sample", "probabilistic"], "all", "write a share, like `keep: 10%`"),
    row(&["SPAN_KIND_SERVER"], "server", "write `server`"),
    row(&["SPAN_KIND_CLIENT"], "client", "write `client`"),
    row(&["SPAN_KIND_PRODUCER"], "producer", "write `producer`"),
    row(&["SPAN_KIND_CONSUMER"], "consumer", "write `consumer`"),
    row(&["SPAN_KIND_INTERNAL"], "internal", "write `internal`"),
    row(&["STATUS_CODE_ERROR", "failed"], "unset", "write `error`"),
    row(&["STATUS_CODE_OK"], "unset", "write `ok`"),
    row(&["STATUS_CODE_UNSET"], "unset", "write `unset`"),
    row(
        &["service", "service.name", "root.service", "entry", "name", "operation", "route", "endpoint"],
        "entry.service",
        "write `entry.service`, `entry.name`, `entry.attributes.KEY`, or a list of them",
    ),
    // The file.
    row(&["default", "else", "fallback"], "rules", "write `otherwise: { keep: 1% }`"),
];

const FORMATS: &[FileFormat] = &[
    FileFormat {
        keys: &[
            "receivers",
            "processors",
            "exporters",
            "extensions",
            "service",
            "tail_sampling",
            "decision_wait",
            "num_traces",
            "policies",
        ],
        title: "this is the format of the OpenTelemetry Collector, not a policy of tailkeep",
        help: "`tailkeep policy import otel FILE` writes a policy from it, and says what is not the same; docs/policy.md \
               has all, under \"Coming from another tool\"",
    },
    FileFormat {
        keys: &[
            "RulesVersion",
            "Samplers",
            "RulesBasedSampler",
            "DeterministicSampler",
            "DynamicSampler",
            "EMADynamicSampler",
            "EMAThroughputSampler",
            "WindowedThroughputSampler",
            "TotalThroughputSampler",
        ],
        title: "these are rules of Refinery, not a policy of tailkeep",
        help: "`tailkeep policy import refinery FILE` writes a policy from them, and says what is not the same; \
               docs/policy.md has all, under \"Coming from another tool\"",
    },
    FileFormat {
        keys: REFINERY_CONFIGURATION,
        title: "this is a configuration of Refinery, not a policy of tailkeep",
        help: "write a configuration with the keys of config/tailkeep.yaml; the policy comes from Refinery's rules: \
               `tailkeep policy import refinery FILE`",
    },
    FileFormat {
        keys: &["receive", "memory", "ring", "policy", "sinks", "queue", "measure", "health", "admin"],
        title: "this is a configuration, not a policy",
        help: "name it with `--config`; a policy has `version`, `rules` and `otherwise`",
    },
];
