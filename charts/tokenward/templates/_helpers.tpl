{{/* Name of the chart, as a label. */}}
{{- define "tokenward.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Prefix of every object's name; short enough for "-controller-leader-election" and a pod's suffix to follow. */}}
{{- define "tokenward.fullname" -}}
{{- $name := include "tokenward.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 35 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 35 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 35 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "tokenward.controller.fullname" -}}
{{- printf "%s-controller" (include "tokenward.fullname" .) }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "tokenward.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "tokenward.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: tokenward
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels by which the controller's pods are selected; they never change between versions. */}}
{{- define "tokenward.controller.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tokenward.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end }}

{{/* Labels of the pods: without versions, so that an upgrade of the chart alone restarts nothing. */}}
{{- define "tokenward.controller.podLabels" -}}
{{- $own := include "tokenward.controller.selectorLabels" . | fromYaml }}
{{- merge $own .Values.controller.podLabels .Values.commonLabels | toYaml }}
{{- end }}

{{- define "tokenward.controller.labels" -}}
{{ include "tokenward.labels" . }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "tokenward.controller.serviceAccountName" -}}
{{- if .Values.controller.serviceAccount.create }}
{{- default (include "tokenward.controller.fullname" .) .Values.controller.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.controller.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "tokenward.controller.leaseName" -}}
{{- default (include "tokenward.controller.fullname" .) .Values.controller.leaderElection.leaseName }}
{{- end }}

{{/* The gate, by the same rules as the controller. */}}
{{- define "tokenward.gate.fullname" -}}
{{- printf "%s-gate" (include "tokenward.fullname" .) }}
{{- end }}

{{- define "tokenward.gate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tokenward.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gate
{{- end }}

{{- define "tokenward.gate.podLabels" -}}
{{- $own := include "tokenward.gate.selectorLabels" . | fromYaml }}
{{- merge $own .Values.gate.podLabels .Values.commonLabels | toYaml }}
{{- end }}

{{- define "tokenward.gate.labels" -}}
{{ include "tokenward.labels" . }}
app.kubernetes.io/component: gate
{{- end }}

{{- define "tokenward.gate.serviceAccountName" -}}
{{- if .Values.gate.serviceAccount.create }}
{{- default (include "tokenward.gate.fullname" .) .Values.gate.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.gate.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* "true" if the controller keeps the ledger; empty otherwise. Not set means: if this release has gates. */}}
{{- define "tokenward.ledger.enabled" -}}
{{- if kindIs "bool" .Values.ledger.enabled }}
{{- if .Values.ledger.enabled }}true{{ end }}
{{- else if .Values.gate.enabled }}true{{ end }}
{{- end }}

{{/* The ServiceAccounts that may report, as the controller's argument takes them. */}}
{{- define "tokenward.ledger.gates" -}}
{{- $gates := .Values.ledger.extraGates }}
{{- if .Values.gate.enabled }}
{{- $gates = prepend $gates (printf "%s/%s" .Release.Namespace (include "tokenward.gate.serviceAccountName" .)) }}
{{- end }}
{{- join "," $gates }}
{{- end }}

{{/* What the gate's projected token is made for and the ledger asks for: both sides take it from here. */}}
{{- define "tokenward.ledger.audience" -}}
tokenward-ledger
{{- end }}

{{/*
Name of a ClusterRole that a release in some namespaces needs too. Roles of these are named alike in every namespace, so
a cluster may have several releases of one name; objects of the cluster need the namespace in their name.
*/}}
{{- define "tokenward.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "tokenward.fullname" .) }}
{{- end }}

{{/*
"true" if the policies of the API server are installed; empty otherwise. Not set means: where the API server has them, unless the
release is limited to some namespaces, because whoever installs such a one may often create Roles only.
*/}}
{{- define "tokenward.admissionPolicies.enabled" -}}
{{- if kindIs "bool" .Values.admissionPolicies.enabled }}
{{- if .Values.admissionPolicies.enabled }}true{{ end }}
{{- else if and (not .Values.namespaces) (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy") }}true{{ end }}
{{- end }}

{{/* Which namespaces the policies are about: those of the release. */}}
{{- define "tokenward.admissionPolicies.namespaces" -}}
namespaceSelector:
{{- with .Values.namespaces }}
  matchExpressions:
    - key: kubernetes.io/metadata.name
      operator: In
      values: {{ toJson . }}
{{- else }} {}
{{- end }}
{{- end }}

{{/* The annotations on an ApiToken that ask for something, as src/api/keys.rs has them. */}}
{{- define "tokenward.requests" -}}
["tokenward.dev/rotate-requested-at", "tokenward.dev/retire-now-at", "tokenward.dev/compromised-at"]
{{- end }}

{{/* The other annotations under our domain that are read on an ApiToken, or stand there. */}}
{{- define "tokenward.annotations" -}}
["tokenward.dev/adopt", "tokenward.dev/owner", "tokenward.dev/contact", "tokenward.dev/schema"]
{{- end }}

{{- define "tokenward.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Seconds of a duration such as 1h30m10s. */}}
{{- define "tokenward.seconds" -}}
{{- $unit := dict "h" 3600 "m" 60 "s" 1 }}
{{- $total := 0 }}
{{- range regexFindAll "[0-9]+[hms]" . -1 }}
{{- $total = add $total (mul (regexFind "[0-9]+" . | int) (get $unit (regexFind "[hms]" .))) }}
{{- end }}
{{- $total }}
{{- end }}

{{/* What a schema cannot say, or not readably: values that must agree with each other or with the chart's own. */}}
{{- define "tokenward.validate" -}}
{{- range $value, $labels := dict "commonLabels" .Values.commonLabels "controller.podLabels" .Values.controller.podLabels "gate.podLabels" .Values.gate.podLabels "metrics.serviceMonitor.labels" .Values.metrics.serviceMonitor.labels }}
{{- range $key, $_ := $labels }}
{{- if or (hasPrefix "app.kubernetes.io/" $key) (hasPrefix "helm.sh/" $key) }}
{{- fail (printf "%s: %s is set by the chart; choose another key" $value $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $value, $variables := dict "controller.extraEnv" .Values.controller.extraEnv "gate.extraEnv" .Values.gate.extraEnv }}
{{- range $variables }}
{{- if has .name (list "POD_NAME" "POD_NAMESPACE" "POD_IP") }}
{{- fail (printf "%s: %s is set by the chart" $value .name) }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.controller }}
{{- $lease := include "tokenward.seconds" .leaderElection.leaseDuration | int }}
{{- $renew := include "tokenward.seconds" .leaderElection.renewDeadline | int }}
{{- $retry := include "tokenward.seconds" .leaderElection.retryPeriod | int }}
{{- if le $lease $renew }}
{{- fail (printf "controller.leaderElection.leaseDuration (%s) must be longer than renewDeadline (%s): a leader has to stop before another takes over" .leaderElection.leaseDuration .leaderElection.renewDeadline) }}
{{- end }}
{{- if le $renew $retry }}
{{- fail (printf "controller.leaderElection.renewDeadline (%s) must be longer than retryPeriod (%s): a leader has to try at least twice" .leaderElection.renewDeadline .leaderElection.retryPeriod) }}
{{- end }}
{{- $stop := add (include "tokenward.seconds" .shutdownGrace | int) 8 }}
{{- if le (int64 .terminationGracePeriodSeconds) $stop }}
{{- fail (printf "controller.terminationGracePeriodSeconds (%d) must be longer than shutdownGrace and 8 s together (%d s), the second for giving up the Lease: otherwise the kubelet kills the process in the middle of it" (int .terminationGracePeriodSeconds) $stop) }}
{{- end }}
{{- end }}
{{- if include "tokenward.ledger.enabled" . }}
{{- if eq (int .Values.ledger.port) (int .Values.controller.adminPort) }}
{{- fail (printf "ledger.port and controller.adminPort are both %d: the controller listens on both" (int .Values.ledger.port)) }}
{{- end }}
{{- if not (include "tokenward.ledger.gates" .) }}
{{- fail "ledger.enabled: nobody may report to the ledger; set gate.enabled=true or name ServiceAccounts in ledger.extraGates" }}
{{- end }}
{{- end }}
{{- if .Values.gate.enabled }}
{{- include "tokenward.gate.validate" . }}
{{- end }}
{{- end }}

{{- define "tokenward.gate.validate" -}}
{{- with .Values.gate }}
{{- $ports := list (int .httpPort) (int .grpcPort) (int .adminPort) }}
{{- if ne (len ($ports | uniq)) 3 }}
{{- fail (printf "gate.httpPort (%d), gate.grpcPort (%d) and gate.adminPort (%d) must differ" (int .httpPort) (int .grpcPort) (int .adminPort)) }}
{{- end }}
{{- $stop := add (include "tokenward.seconds" .shutdownGrace | int | mul 2) (int .drainDelaySeconds) 4 }}
{{- if le (int64 .terminationGracePeriodSeconds) $stop }}
{{- fail (printf "gate.terminationGracePeriodSeconds (%d) must be longer than drainDelaySeconds, twice shutdownGrace and 4 s together (%d s), once for requests and once for the last reports: otherwise the kubelet kills the process in the middle of it" (int .terminationGracePeriodSeconds) $stop) }}
{{- end }}
{{- with .denyWhenStaleFor }}
{{- if lt (include "tokenward.seconds" . | int) 90 }}
{{- fail (printf "gate.denyWhenStaleFor (%s) must be at least 90s: a shorter time would deny everything whenever a watch is opened anew" .) }}
{{- end }}
{{- end }}
{{- if eq .kind "DaemonSet" }}
{{- if .autoscaling.enabled }}
{{- fail "gate.autoscaling.enabled: a DaemonSet has one pod on every node; set gate.kind=Deployment" }}
{{- end }}
{{- else }}
{{- $most := ternary .autoscaling.maxReplicas .replicas .autoscaling.enabled | int }}
{{- if and (gt $most 60) (include "tokenward.ledger.enabled" $) }}
{{- fail (printf "%s (%d) must be at most 60: the ledger keeps account of 64 gates, and a roll needs some more than run" (ternary "gate.autoscaling.maxReplicas" "gate.replicas" .autoscaling.enabled) $most) }}
{{- end }}
{{- if eq .service.internalTrafficPolicy "Local" }}
{{- fail "gate.service.internalTrafficPolicy: with Local, proxies on nodes without a gate reach none; set gate.kind=DaemonSet" }}
{{- end }}
{{- end }}
{{- if .autoscaling.enabled }}
{{- if gt (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas) }}
{{- fail (printf "gate.autoscaling.minReplicas (%d) must not be larger than maxReplicas (%d)" (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas)) }}
{{- end }}
{{- if not (default dict .resources.requests).cpu }}
{{- fail "gate.autoscaling.enabled: the target is a part of gate.resources.requests.cpu, which is not set" }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
