//! The same job, written for tailkeep and for the OpenTelemetry Collector: keep failed traces and
//! those of 500 ms and more, decide after 5 s, measure all spans, send what is kept to one OTLP sink.

/// What a run is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// CPU and peak memory, with a fixed ring.
    Speed,
    /// Nothing is decided while we look: how much memory does a waiting span take?
    Pending,
    /// Little traffic and little memory.
    Sidecar,
}

/// Ports on 127.0.0.1.
pub struct Ports {
    pub grpc: u16,
    pub http: u16,
    pub health: u16,
    pub admin: u16,
    pub sink: u16,
}

pub fn tailkeep(purpose: Purpose, ports: &Ports) -> String {
    let memory = match purpose {
        Purpose::Speed | Purpose::Pending => "memory: 512MiB\nring: { size: 256MiB }",
        Purpose::Sidecar => "memory: 64MiB",
    };
    let Ports { grpc, http, health, admin, sink } = ports;
    format!(
        "receive: {{ grpc: '127.0.0.1:{grpc}', http: '127.0.0.1:{http}' }}
{memory}
policy: policy.yaml
measure: {{ every: 10s, kinds: all }}
sinks:
  - name: here
    store: {{ path: tailkeep.db, size: 1GiB }}
  - name: stub
    otlp: {{ endpoint: 'http://127.0.0.1:{sink}', compression: none }}
health: {{ listen: '127.0.0.1:{health}' }}
admin: {{ listen: '127.0.0.1:{admin}' }}
"
    )
}

pub fn tailkeep_policy(purpose: Purpose) -> String {
    let wait = match purpose {
        Purpose::Pending => "after_root: 10m, idle: 10m, longest: 10m",
        Purpose::Speed | Purpose::Sidecar => "after_root: 5s, idle: 10s, longest: 30s",
    };
    format!(
        "version: 1
wait: {{ {wait} }}
rules:
  - name: keep-errors
    when: {{ error: true }}
    keep: all
  - name: keep-slow
    when: {{ duration: {{ at_least: 500ms }} }}
    keep: all
otherwise: {{ keep: none }}
"
    )
}

/// With `caches` the tail sampler remembers its decisions, as tailkeep does; without it is
/// sometimes cheaper. Its own telemetry is off, one event loop a core, and kept traces are batched.
pub fn collector(purpose: Purpose, ports: &Ports, caches: bool) -> String {
    let wait = if purpose == Purpose::Pending { "600s" } else { "5s" };
    let caches = if caches {
        "block_on_overflow: true
    decision_cache: { sampled_cache_size: 200000, non_sampled_cache_size: 1000000 }"
    } else {
        "block_on_overflow: false"
    };
    let Ports { grpc, sink, .. } = ports;
    format!(
        "receivers:
  otlp:
    protocols: {{ grpc: {{ endpoint: '127.0.0.1:{grpc}', max_recv_msg_size_mib: 64 }} }}
processors:
  tail_sampling:
    decision_wait: {wait}
    num_traces: 500000
    num_shards: 2
    expected_new_traces_per_sec: 20000
    sample_on_first_match: true
    {caches}
    policies:
      - {{ name: failed, type: status_code, status_code: {{ status_codes: [ERROR] }} }}
      - {{ name: slow, type: latency, latency: {{ threshold_ms: 500 }} }}
connectors:
  span_metrics:
    histogram:
      unit: ms
      explicit: {{ buckets: [2ms, 4ms, 6ms, 8ms, 10ms, 50ms, 100ms, 200ms, 400ms, 800ms, 1s, 1400ms, 2s, 5s, 10s, 15s] }}
    metrics_flush_interval: 10s
exporters:
  otlp_grpc:
    endpoint: '127.0.0.1:{sink}'
    compression: none
    tls: {{ insecure: true }}
    sending_queue:
      num_consumers: 4
      sizer: items
      queue_size: 200000
      block_on_overflow: true
      batch: {{ flush_timeout: 200ms, min_size: 2048, max_size: 8192 }}
  nop: {{}}
service:
  telemetry: {{ logs: {{ level: warn }}, metrics: {{ level: none }} }}
  pipelines:
    traces: {{ receivers: [otlp], processors: [tail_sampling], exporters: [otlp_grpc] }}
    traces/measured: {{ receivers: [otlp], exporters: [span_metrics] }}
    metrics: {{ receivers: [span_metrics], exporters: [nop] }}
"
    )
}
