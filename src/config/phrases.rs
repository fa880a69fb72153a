//! Examples of the configuration, and its words for those of other tools.

use crate::yaml::{Example, FileFormat, Foreign, Phrases, REFINERY_CONFIGURATION, row};

pub(super) const PHRASES: &Phrases = &Phrases { examples: EXAMPLES, foreign: FOREIGN, formats: FORMATS };

const EXAMPLES: &[Example] = &[
    ("a configuration", "sinks: [{ otlp: { endpoint: http://otel-gateway:4317 } }]"),
    ("`receive`", "receive: { grpc: 0.0.0.0:4317 }"),
    ("`grpc`", "grpc: 0.0.0.0:4317"),
    ("`http`", "http: 0.0.0.0:4318"),
    ("`listen`", "listen: 127.0.0.1:13134"),
    ("`cors` of `receive`", "cors: [\"https://shop.example\"]"),
    ("`memory`", "memory: 512MiB"),
    ("`ring`", "ring: { size: 300MiB }"),
    ("`policy`", "policy: policy.yaml"),
    ("`measure`", "measure: { every: 60s }"),
    ("`processing`", "processing: { drop: [http.request.header.cookie] }"),
    ("`drop`", "drop: [http.request.header.cookie]"),
    ("`hash`", "hash: [user.id]"),
    ("`hash_key`", "hash_key: ${env:TAILKEEP_HASH_KEY}"),
    ("`mask`", "mask: [email, card]"),
    ("an item of `mask`", "{ matches: 'sk-[A-Za-z0-9]{20,}' }"),
    ("`matches`", "matches: 'sk-[A-Za-z0-9]{20,}'"),
    ("`resource`", "resource: { k8s.cluster.name: prod }"),
    ("`sinks`", "sinks: [{ store: { path: tailkeep.db } }]"),
    ("a sink", "{ name: upstream, otlp: { endpoint: http://otel-gateway:4317 } }"),
    ("`store`", "store: { path: tailkeep.db }"),
    ("`file`", "file: { path: traces }"),
    ("`path`", "path: /var/lib/tailkeep/tailkeep.db"),
    ("`otlp`", "otlp: { endpoint: http://otel-gateway:4317 }"),
    ("`endpoint`", "endpoint: http://otel-gateway:4317"),
    ("`arms`", "arms: { endpoint: http://HOST:8090, token: \"${env:ARMS_TOKEN}\" }"),
    ("`license`", "license: { key: \"${env:KEY}\", project: p, workspace: w }"),
    ("`sls`", "sls: { endpoint: cn-hangzhou.log.aliyuncs.com, project: p, traces: otel-traces }"),
    ("`auth`", "auth: { type: auto }"),
    ("`access_key_id`", "access_key_id: ${env:ACCESS_KEY_ID}"),
    ("`access_key_secret`", "access_key_secret: ${env:ACCESS_KEY_SECRET}"),
    ("`headers`", "headers: { x-tenant: shop }"),
    ("`urls`", "urls: { traces: https://HOST/v1/traces }"),
    ("`queue`", "queue: { path: queue }"),
    ("`health`", "health: { listen: 127.0.0.1:13133 }"),
    ("`admin`", "admin: { listen: 127.0.0.1:13134 }"),
    ("`drain`", "drain: { deadline: 25s }"),
    ("`token`", "token: ${env:TOKEN}"),
];

/// The first row that fits speaks.
const FOREIGN: &[Foreign] = &[
    row(
        &["log", "logs", "logging", "log_level", "telemetry"],
        "receive",
        "the log is set by flags, like `--log debug`",
    ),
    row(
        &["attributes", "redaction", "transform", "resource"],
        "receive",
        "write `processing:` with `drop`, `hash`, `mask` or `resource`",
    ),
    row(&["delete", "remove"], "hash_key", "write `drop: [http.request.header.cookie]`"),
    row(&["blocked_values", "redact", "replace"], "hash_key", "write `mask: [email, card]`"),
    row(&["insert", "add", "upsert"], "hash_key", "write `resource: { k8s.cluster.name: prod }`"),
    row(&["pattern", "regex", "regexp", "value", "values"], "matches", "write `matches: '[0-9]{4,}'`"),
    row(&["sink", "outputs", "output", "exporter"], "receive", "write `sinks:` with a list"),
    row(&["spool", "sending_queue", "buffer"], "receive", "write `queue: { path: queue }`"),
    row(
        &["sampling", "tail_sampling"],
        "receive",
        "write rules into a file of their own, and name it: `policy: policy.yaml`",
    ),
    row(&["otlp", "protocols"], "max_request", "write `grpc: 0.0.0.0:4317` and `http: 0.0.0.0:4318`"),
    row(&["listen", "endpoint", "address", "port"], "max_request", "write `grpc: 0.0.0.0:4317`, `http: 0.0.0.0:4318`"),
    row(&["max_connection_age", "keepalive"], "connection_age", "write `connection_age: 5m`"),
    row(&["allowed_origins"], "cors", "write `cors: [\"https://shop.example\"]`"),
    row(&["type", "kind"], "sls", "the kind is a key of its own, like `otlp: { endpoint: http://otel-gateway:4317 }`"),
    row(&["endpoint"], "sls", "it goes below the kind: `otlp: { endpoint: http://otel-gateway:4317 }`"),
    row(&["url", "host", "address", "server"], "endpoint", "write `endpoint: http://HOST:PORT`"),
    row(
        &["insecure", "insecure_skip_verify"],
        "ca_file",
        "without TLS write `http://` in `endpoint`; else name its `ca_file`",
    ),
    row(&["ca", "ca_cert", "ca_crt"], "ca_file", "write `ca_file: …`"),
    row(&["cert_file", "certificate", "crt"], "cert", "write `cert: …`"),
    row(&["key_file", "private_key"], "cert", "write `key: …`"),
    row(&["client_ca_file", "ca_file"], "client_ca", "write `client_ca: …`"),
    row(&["folder", "directory", "dir", "file", "filename"], "path", "write `path: …`"),
];

const FORMATS: &[FileFormat] = &[
    FileFormat {
        keys: &["receivers", "processors", "exporters", "extensions", "connectors", "service"],
        title: "this is the format of the OpenTelemetry Collector, not a configuration of tailkeep",
        help: "an exporter becomes `sinks: [{ otlp: { endpoint: http://otel-gateway:4317 } }]`: docs/configuration.md has \
               all, under \"Coming from another tool\"; `tailkeep policy import otel FILE` writes the policy",
    },
    FileFormat {
        keys: REFINERY_CONFIGURATION,
        title: "this is a configuration of Refinery, not of tailkeep",
        help: "where it listens is `receive:`, and where it sends `sinks:`: docs/configuration.md has all, under \
               \"Coming from another tool\"; config/tailkeep.yaml shows every key",
    },
    FileFormat {
        keys: &["RulesVersion", "Samplers"],
        title: "these are rules of Refinery, not a configuration of tailkeep",
        help: "`tailkeep policy import refinery FILE` writes a policy from them; name that with `policy:`",
    },
    FileFormat {
        keys: &["rules", "otherwise"],
        title: "this is a policy, not a configuration",
        help: "name it with `--policy`, or with `policy:` in a configuration",
    },
];
