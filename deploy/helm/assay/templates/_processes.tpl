{{/*
Each process's users, secrets and volumes: the table of docs/how-to/isolate-processes.md. A test
compares it with assay/processes.py and with compose.yaml.
*/}}
{{- define "assay.processes" -}}
web:
  process: web
  database: assay_web
  broker: assay_web
  files: {DATABASE_PASSWORD: database_password, REDIS_PASSWORD: valkey, ASSAY_SECRET_KEY: secret_key, ASSAY_KEY_PEPPER: key_pepper, ASSAY_AUDIT_PUBLIC_KEY: audit_public_key, ASSAY_USAGE_KEY: usage_key, ASSAY_WIRE_KEY: wire_key, ASSAY_REQUEST_LOG_KEY: request_log_key, ASSAY_EGRESS_PUBLIC_KEY: egress_public_key, ASSAY_METRICS_TOKEN: metrics_token, ASSAY_OIDC_CLIENT_SECRET: oidc_client_secret, ASSAY_SCIM_TOKEN: scim_token, ASSAY_SIEM_STREAMS: siem_streams, ASSAY_EMAIL_URL: email_url, ASSAY_REVIEW_WEBHOOK_SECRET: review_webhook_secret}
  store: writer
  volumes: [artifacts, quarantine, media, files, work, "audit-exports:ro", "transparency:ro"]
controller:
  process: controller
  database: assay_controller
  broker: assay_controller
  files: {DATABASE_PASSWORD: database_password, REDIS_PASSWORD: valkey, ASSAY_AUDIT_SIGNING_KEY: audit_signing_key, ASSAY_USAGE_KEY: usage_key, ASSAY_SIEM_STREAMS: siem_streams, ASSAY_EMAIL_URL: email_url, ASSAY_REVIEW_WEBHOOK_SECRET: review_webhook_secret}
  store: writer
  volumes: [artifacts, quarantine, media, files, work, audit-exports, transparency]
compute:
  process: worker
  database: assay_worker
  broker: assay_compute
  files: {DATABASE_PASSWORD: database_password, REDIS_PASSWORD: valkey}
  store: reader
  volumes: ["artifacts:ro", "quarantine:ro", work]
engine:
  process: worker
  database: assay_worker
  broker: assay_engine
  files: {DATABASE_PASSWORD: database_password, REDIS_PASSWORD: valkey, ASSAY_WIRE_KEY: wire_key}
  store: reader
  volumes: ["artifacts:ro", media]
egress:
  process: egress
  database: assay_worker
  broker: assay_engine
  files: {DATABASE_PASSWORD: database_password, REDIS_PASSWORD: valkey, ASSAY_WIRE_KEY: wire_key, ASSAY_EGRESS_KEY: egress_key, ASSAY_EGRESS_KEY_2: egress_key_2}
  store: reader
  volumes: ["artifacts:ro", media, work]
migrate:
  process: migrate
  database: assay_owner
  broker: assay_web
  files: &migrateFiles {DATABASE_PASSWORD: database_password, REDIS_PASSWORD: valkey, ASSAY_KEY_PEPPER: key_pepper, ASSAY_DATABASE_PASSWORD_WEB: database_password_web, ASSAY_DATABASE_PASSWORD_CONTROLLER: database_password_controller, ASSAY_DATABASE_PASSWORD_WORKER: database_password_worker, ASSAY_AUDIT_PUBLIC_KEY: audit_public_key}
  store: ""
  # Its first pod starts before any volume is made.
  volumes: []
# The process migrate where backups are made and restored.
backup:
  process: migrate
  database: assay_owner
  broker: assay_web
  files: *migrateFiles
  store: writer
  volumes: [artifacts, "transparency:ro"]
{{- end }}

{{- define "assay.labels" -}}
app.kubernetes.io/name: assay
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "assay.metadata" -}}
name: {{ .root.Release.Name }}-{{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "assay.labels" . | nindent 2 }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/* Objects in the namespace of runs. */}}
{{- define "assay.runMetadata" -}}
name: {{ .root.Release.Name }}-run
namespace: {{ .root.Values.runs.namespace }}
labels:
  {{- include "assay.labels" . | nindent 2 }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/* Objects of the whole cluster, which other releases must not share. */}}
{{- define "assay.clusterName" -}}
{{ .root.Release.Namespace }}-{{ .root.Release.Name }}-{{ .name }}
{{- end }}

{{- define "assay.clusterMetadata" -}}
name: {{ include "assay.clusterName" . }}
labels:
  {{- include "assay.labels" . | nindent 2 }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/*
Restricted: no root, no privileges, no capabilities, nothing to write to but what is mounted. `token`
gives the pod a token of the cluster.
*/}}
{{- define "assay.podSecurity" -}}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "assay.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  privileged: false
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "assay.databaseQuery" -}}
{{- with .Values.database.query }}?{{ . }}{{ end }}
{{- end }}

{{- define "assay.mlflowUrl" -}}
{{- if .Values.mlflow.enabled }}http://{{ .Release.Name }}-mlflow:5000{{ else }}{{ required "Set mlflow.url, or mlflow.enabled." .Values.mlflow.url }}{{ end }}
{{- end }}

{{- define "assay.claim" -}}
{{- $storage := get .root.Values.storage .name -}}
{{ $storage.existingClaim | default (printf "%s-%s" .root.Release.Name .name) }}
{{- end }}
