{{/* The balancer's configuration, that of config/k8s/balancer.yaml: OTLP in, trace-id routing out. */}}
{{- define "tailkeep.collector" -}}
{{- $name := include "tailkeep.name" . -}}
{{- $host := printf "%s.%s.svc.cluster.local" $name .Release.Namespace -}}
receivers:
  otlp:
    protocols:
      grpc: { endpoint: 0.0.0.0:4317 }
      http: { endpoint: 0.0.0.0:4318 }
extensions:
  health_check: { endpoint: 0.0.0.0:13133 }
processors:
  # First of each pipeline. It refuses for now, and senders come again, before the container's limit ends the process.
  memory_limiter: { check_interval: 1s, limit_percentage: 80, spike_limit_percentage: 20 }
exporters:
  load_balancing:
    routing_key: traceID
    protocol:
      otlp: { tls: { insecure: true } }
    resolver:
      {{- if eq .Values.balancer.resolver "names" }}
      static:
        hostnames:
          {{- range until (int .Values.replicas) }}
          - {{ $name }}-{{ . }}.{{ $host }}:4317
          {{- end }}
      {{- else }}
      dns: { hostname: {{ $host }}, port: "4317", interval: 5s }
      {{- end }}
  otlp_grpc:
    endpoint: dns:///{{ $host }}:4317
    balancer_name: round_robin
    tls: { insecure: true }
service:
  extensions: [health_check]
  # Metrics and logs need no routing.
  pipelines:
    traces: { receivers: [otlp], processors: [memory_limiter], exporters: [load_balancing] }
    metrics: { receivers: [otlp], processors: [memory_limiter], exporters: [otlp_grpc] }
    logs: { receivers: [otlp], processors: [memory_limiter], exporters: [otlp_grpc] }
{{- end }}
