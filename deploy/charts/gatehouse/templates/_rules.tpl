{{/* The rights, in parts: which process has which depends on operator.separate. */}}

{{- define "gatehouse.rules.read" -}}
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get, list, watch]
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [get, list, watch]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [clusterroles]
  resourceNames: [{{ include "gatehouse.role" . }}]
  verbs: [get]
{{- end -}}

{{- define "gatehouse.rules.policies" -}}
- apiGroups: [policy.sigstore.dev]
  resources: [clusterimagepolicies, trustroots]
  verbs: [get, list, watch]
- apiGroups: [policy.sigstore.dev]
  resources: [clusterimagepolicies/status, trustroots/status]
  verbs: [patch]
- apiGroups: [gatehouse.dev]
  resources: [imagerules]
  verbs: [get, list, watch]
- apiGroups: [gatehouse.dev]
  resources: [imagerules/status]
  verbs: [patch]
- apiGroups: [authorization.k8s.io]
  resources: [subjectaccessreviews]
  verbs: [create]
- apiGroups: [templates.gatekeeper.sh, constraints.gatekeeper.sh, expansion.gatekeeper.sh, syncset.gatekeeper.sh]
  resources: ["*"]
  verbs: [get, list, watch]
- apiGroups: [templates.gatekeeper.sh, constraints.gatekeeper.sh, expansion.gatekeeper.sh, syncset.gatekeeper.sh]
  resources: ["*/status"]
  verbs: [patch]
{{- if .Values.webhook.fallbackPolicy }}
- apiGroups: [admissionregistration.k8s.io]
  resources: [validatingadmissionpolicies, validatingadmissionpolicybindings]
  verbs: [create]
- apiGroups: [admissionregistration.k8s.io]
  resources: [validatingadmissionpolicies, validatingadmissionpolicybindings]
  resourceNames: [gatehouse-fallback]
  verbs: [get, patch, delete]
{{- end }}
{{- end -}}

{{- define "gatehouse.rules.running" -}}
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
- apiGroups: [wgpolicyk8s.io]
  resources: [policyreports]
  verbs: [list, create]
- apiGroups: [wgpolicyk8s.io]
  resources: [policyreports]
  resourceNames: [gatehouse-running]
  verbs: [patch, delete]
- apiGroups: [openreports.io]
  resources: [reports]
  verbs: [list, create]
- apiGroups: [openreports.io]
  resources: [reports]
  resourceNames: [gatehouse-running]
  verbs: [patch, delete]
{{- end -}}

{{- define "gatehouse.rules.manage" -}}
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [create]
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: [clusterimagepolicies.policy.sigstore.dev, trustroots.policy.sigstore.dev, imagerules.gatehouse.dev, constrainttemplates.templates.gatekeeper.sh, expansiontemplate.expansion.gatekeeper.sh, syncsets.syncset.gatekeeper.sh]
  verbs: [patch]
- apiGroups: [admissionregistration.k8s.io]
  resources: [validatingwebhookconfigurations, mutatingwebhookconfigurations]
  verbs: [create]
- apiGroups: [admissionregistration.k8s.io]
  resources: [validatingwebhookconfigurations, mutatingwebhookconfigurations]
  resourceNames: [gatehouse]
  verbs: [get, patch, delete]
{{- end -}}

{{/* What the operator makes definitions of constraints from. */}}
{{- define "gatehouse.rules.templates" -}}
- apiGroups: [templates.gatekeeper.sh]
  resources: [constrainttemplates]
  verbs: [get, list, watch]
{{- end -}}

{{- define "gatehouse.rules.home" -}}
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get, list, watch]
{{- end -}}

{{- define "gatehouse.rules.homeOfOperator" -}}
- apiGroups: [""]
  resources: [secrets, configmaps]
  resourceNames: [gatehouse-webhook]
  verbs: [get, list, watch]
{{- end -}}

{{- define "gatehouse.rules.leases" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [gatehouse, gatehouse-server]
  verbs: [get, update]
{{- end -}}

{{- define "gatehouse.rules.certificate" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [gatehouse-webhook]
  verbs: [update]
{{- end -}}
