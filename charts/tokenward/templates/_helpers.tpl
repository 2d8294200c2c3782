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
{{- range $value, $labels := dict "commonLabels" .Values.commonLabels "controller.podLabels" .Values.controller.podLabels "metrics.serviceMonitor.labels" .Values.metrics.serviceMonitor.labels }}
{{- range $key, $_ := $labels }}
{{- if or (hasPrefix "app.kubernetes.io/" $key) (hasPrefix "helm.sh/" $key) }}
{{- fail (printf "%s: %s is set by the chart; choose another key" $value $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- range .Values.controller.extraEnv }}
{{- if has .name (list "POD_NAME" "POD_NAMESPACE") }}
{{- fail (printf "controller.extraEnv: %s is set by the chart" .name) }}
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
{{- if le (int .terminationGracePeriodSeconds) (include "tokenward.seconds" .shutdownGrace | int) }}
{{- fail (printf "controller.terminationGracePeriodSeconds (%d) must be longer than shutdownGrace (%s): otherwise the kubelet kills the process in the middle of it" (int .terminationGracePeriodSeconds) .shutdownGrace) }}
{{- end }}
{{- end }}
{{- end }}
