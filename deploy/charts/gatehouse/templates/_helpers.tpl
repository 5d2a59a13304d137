{{- define "gatehouse.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "gatehouse.labels" -}}
app.kubernetes.io/name: gatehouse
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "gatehouse.selector" -}}
app.kubernetes.io/name: gatehouse
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "gatehouse.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Whether rows and blobs lie outside of the pods, so that there may be several. */}}
{{- define "gatehouse.shared" -}}
{{- if and .Values.database.secretName .Values.storage.url }}true{{ end -}}
{{- end -}}

{{/* The ClusterRole that everything made in the cluster goes away with. */}}
{{- define "gatehouse.role" -}}
{{ printf "%s-%s" .Release.Namespace (include "gatehouse.name" .) }}
{{- end -}}

{{/* Settings: those of the values, and over them what the chart decides. */}}
{{- define "gatehouse.config" -}}
{{- $name := include "gatehouse.name" . -}}
{{- $own := dict
  "data" "/var/lib/gatehouse"
  "listen" "0.0.0.0:5000"
  "admission-listen" (printf "0.0.0.0:%v" .Values.webhook.port)
  "metrics-listen" "0.0.0.0:9090"
  "log-format" "json"
  "kubeconfig" "in-cluster"
  "cluster-manage" (not .Values.operator.separate)
  "cluster-owner" (include "gatehouse.role" .)
  "webhook-service" (printf "%s/%s-webhook" .Release.Namespace $name)
  "webhook-failure-policy" .Values.webhook.failurePolicy
  "webhook-timeout" (printf "%vs" .Values.webhook.timeoutSeconds)
  "admission-exempt-namespaces" .Values.webhook.skipNamespaces
  "webhook-namespaces" .Values.webhook.namespaces
  "webhook-resources" .Values.webhook.resources
  "fallback-policy" .Values.webhook.fallbackPolicy
-}}
{{- with .Values.elsewhere -}}
{{- if .server -}}
{{- $_ := set $own "facts-server" .server -}}
{{- $_ := set $own "facts-key" "/etc/gatehouse/facts/facts.pub" -}}
{{- $_ := set $own "admission-max-stale" .maxStale -}}
{{- if .ca -}}{{- $_ := set $own "facts-ca" "/etc/gatehouse/facts/ca.crt" -}}{{- end -}}
{{- if .loginSecretName -}}{{- $_ := set $own "registry-login-file" "/etc/gatehouse/login/config.json" -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Values.tls.secretName -}}
{{- $_ := set $own "tls-cert" "/etc/gatehouse/tls/tls.crt" -}}
{{- $_ := set $own "tls-key" "/etc/gatehouse/tls/tls.key" -}}
{{- else -}}
{{- $_ := set $own "insecure" true -}}
{{- end -}}
{{- if .Values.database.secretName -}}{{- $_ := set $own "database-file" "/etc/gatehouse/database/url" -}}{{- end -}}
{{- if .Values.storage.url -}}{{- $_ := set $own "storage" .Values.storage.url -}}{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.config.hostnames) -}}{{- $_ := set $own "hostnames" (list .Values.ingress.host) -}}{{- end -}}
{{- if .Values.policies -}}{{- $_ := set $own "policy" (list "/etc/gatehouse/policies") -}}{{- end -}}
{{- $all := deepCopy .Values.config -}}
{{- range $key, $value := $own -}}{{- $_ := set $all $key $value -}}{{- end -}}
{{- $all | toYaml -}}
{{- end -}}

{{- define "gatehouse.security" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Replicas of a component, given as (list . component), on several nodes. */}}
{{- define "gatehouse.spread" -}}
{{- if (index . 0).Values.topologySpread }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "gatehouse.selector" (index . 0) | nindent 8 }}
        app.kubernetes.io/component: {{ index . 1 }}
{{- end }}
{{- end -}}

{{/* A PodDisruptionBudget: (list . name component replicas). */}}
{{- define "gatehouse.budget" -}}
{{- $root := index . 0 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ index . 1 }}
  labels: {{- include "gatehouse.labels" $root | nindent 4 }}
spec:
  {{- if gt (int (index . 3)) 1 }}
  minAvailable: {{ $root.Values.podDisruptionBudget.minAvailable }}
  {{- else }}
  # Of one replica none would ever be let go.
  maxUnavailable: 1
  {{- end }}
  # A pod that is not ready holds no node up.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "gatehouse.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ index . 2 }}
{{- end -}}

{{- define "gatehouse.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "gatehouse.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
