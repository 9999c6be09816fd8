{{- define "watcher.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "watcher.release" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* Found by these: the watcher's own Pods, and not the one that tests them. */ -}}
{{- define "watcher.selector" -}}
{{ include "watcher.release" . }}
app.kubernetes.io/component: watcher
{{- end -}}

{{- define "watcher.labels" -}}
{{ include "watcher.release" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "watcher.image" -}}
{{- .Values.image.repository -}}
{{- if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end -}}
{{- end -}}

{{- define "watcher.account" -}}
{{- .Values.serviceAccount.name | default (ternary (include "watcher.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "watcher.secret" -}}
{{- .Values.existingSecret | default (include "watcher.fullname" .) -}}
{{- end -}}

{{- define "watcher.config" -}}
{{- toYaml .Values.config -}}
{{- end -}}

{{- /* "true" where the store is a database, else nothing. */ -}}
{{- define "watcher.shared" -}}
{{- if hasPrefix "postgres" ((.Values.config.store).url | default "") }}true{{ end -}}
{{- end -}}
