{{- /* What the watcher's Pod and the one that tests it have in common. */ -}}
{{- define "watcher.pod" -}}
serviceAccountName: {{ include "watcher.account" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- range $key := list "imagePullSecrets" "nodeSelector" "tolerations" "affinity" }}
{{- with get $.Values $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "watcher.container" -}}
image: {{ include "watcher.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - name: WATCHER_SERVER__LISTEN
    value: ":10911"
  - name: WATCHER_SECRETS_DIR
    value: /run/secrets/devserver-watcher
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
volumeMounts:
  - {name: config, mountPath: /etc/devserver-watcher, readOnly: true}
  - {name: secrets, mountPath: /run/secrets/devserver-watcher, readOnly: true}
  - {name: state, mountPath: /var/lib/devserver-watcher}
  {{- with .Values.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /* A dict: the root as `root`, the state's volume as `state`. */ -}}
{{- define "watcher.volumes" -}}
- name: config
  configMap:
    name: {{ include "watcher.fullname" .root }}
- name: secrets
  secret:
    secretName: {{ include "watcher.secret" .root }}
    defaultMode: 0440
- name: state
  {{- toYaml .state | nindent 2 }}
{{- with .root.Values.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
