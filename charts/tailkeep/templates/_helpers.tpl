{{/* gateway, node or sidecar: what this release is called after its own name. */}}
{{- define "tailkeep.role" -}}
{{ ternary "node" .Values.mode (eq .Values.mode "daemonset") }}
{{- end }}

{{- define "tailkeep.name" -}}
{{ printf "%s-%s" .Release.Name (include "tailkeep.role" .) | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "tailkeep.balancer" -}}
{{ printf "%s-balancer" .Release.Name | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* What selects the pods of a component. Takes the chart's context and the component's name. */}}
{{- define "tailkeep.selector" -}}
app.kubernetes.io/name: tailkeep
app.kubernetes.io/instance: {{ .context.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "tailkeep.labels" -}}
{{ include "tailkeep.selector" . }}
app.kubernetes.io/version: {{ .context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .context.Chart.Name .context.Chart.Version }}
{{- end }}

{{/* The configuration as a map. What the chart needs of it is checked here, before anything is made. */}}
{{- define "tailkeep.config" -}}
{{- $config := fromYaml .Values.config }}
{{- if hasKey $config "Error" }}
{{- fail (printf "config is not YAML: %s" $config.Error) }}
{{- end }}
{{- if ne (dig "health" "listen" "" $config) "0.0.0.0:13133" }}
{{- fail "config: probes and Prometheus ask for `health: { listen: 0.0.0.0:13133 }`" }}
{{- end }}
{{- if ne (toString $config.policy) "/etc/tailkeep/policy.yaml" }}
{{- fail "config: the policy of the values is mounted there: write `policy: /etc/tailkeep/policy.yaml`" }}
{{- end }}
{{- $config | toYaml }}
{{- end }}

{{/* Ports of the container, and of a gateway's service. */}}
{{- define "tailkeep.ports" -}}
{{- $config := include "tailkeep.config" . | fromYaml -}}
otlp-grpc: 4317
otlp-http: 4318
health: 13133
{{- if kindIs "map" $config.admin }}
admin: 13134
{{- end }}
{{- end }}

{{/* As an unprivileged user, of the image's own number. */}}
{{- define "tailkeep.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "tailkeep.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{/* One of a component's pods on each node, as long as there is room. */}}
{{- define "tailkeep.spread" -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- include "tailkeep.selector" . | nindent 6 }}
{{- end }}
