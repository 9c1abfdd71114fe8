{{/*
The pod of one process. Arguments: root, kind (a key of assay.processes), component, image, args,
environment (a list), resources, scratch and uploads (sizes, empty for none), pool (of a worker),
backups (a claim).
*/}}
{{- define "assay.pod" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
{{- $process := get (include "assay.processes" .root | fromYaml) .kind -}}
{{- $pool := .pool | default dict -}}
{{- $bucket := and $values.store.url $process.store -}}
{{- $launches := and $values.runs.enabled (eq .kind "compute") -}}
metadata:
  labels:
    {{- include "assay.labels" . | nindent 4 }}
spec:
  {{- include "assay.podSecurity" (dict "token" $launches) | nindent 2 }}
  {{- if $launches }}
  serviceAccountName: {{ $root.Release.Name }}-compute
  {{- end }}
  terminationGracePeriodSeconds: {{ .grace | default 60 }}
  {{- with $values.images.pullSecrets }}
  imagePullSecrets: {{ toJson . }}
  {{- end }}
  {{- with $pool.nodeSelector }}
  nodeSelector: {{ toJson . }}
  {{- end }}
  {{- with $pool.tolerations }}
  tolerations: {{ toJson . }}
  {{- end }}
  {{- if eq .kind "controller" }}
  affinity:
    podAntiAffinity:
      # Preferred: where it were required, no new pod would find a machine during an update of two.
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels:
                {{- include "assay.labels" . | nindent 16 }}
  {{- end }}
  {{- if eq $process.process "migrate" }}
  restartPolicy: Never
  {{- else }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "assay.labels" . | nindent 10 }}
  {{- end }}
  containers:
    - name: {{ .kind }}
      image: {{ .image | quote }}
      imagePullPolicy: {{ $values.images.pullPolicy }}
      args: {{ toJson .args }}
      {{- include "assay.containerSecurity" . | nindent 6 }}
      env:
        - {name: ASSAY_ENV, value: production}
        - {name: ASSAY_PROCESS, value: {{ $process.process }}}
        - {name: DATABASE_URL, value: {{ printf "postgresql://%s@%s:%v/%s%s" $process.database $values.database.host $values.database.port $values.database.name (include "assay.databaseQuery" $root) | quote }}}
        - {name: REDIS_URL, value: {{ printf "rediss://%s:%v/0" $values.broker.host $values.broker.port | quote }}}
        - {name: REDIS_CA_PATH, value: /run/broker/ca.crt}
        - {name: REDIS_USERNAME, value: {{ $process.broker }}}
        - {name: ASSAY_AUDIT_LOG_NAME, value: {{ $values.audit.logName | quote }}}
        {{- range $name, $file := $process.files }}
        - {name: {{ $name }}_FILE, value: /run/secrets/assay/{{ $file }}}
        {{- end }}
        {{- if $bucket }}
        - {name: ASSAY_STORE_URL, value: {{ $values.store.url | quote }}}
        - {name: ASSAY_STORE_S3_ENDPOINT_URL, value: {{ $values.store.endpointUrl | quote }}}
        - {name: ASSAY_STORE_S3_REGION, value: {{ $values.store.region | quote }}}
        - {name: ASSAY_STORE_ACCESS_KEY_ID_FILE, value: /run/secrets/assay/store_access_key_id}
        - {name: ASSAY_STORE_SECRET_ACCESS_KEY_FILE, value: /run/secrets/assay/store_secret_access_key}
        {{- end }}
        {{- with $values.tracing.endpoint }}
        - {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
        {{- end }}
        {{- range $name, $value := $values.environment }}
        - {name: {{ $name }}, value: {{ $value | quote }}}
        {{- end }}
        {{- range .environment }}
        - {{ toJson . }}
        {{- end }}
      {{- if eq .kind "web" }}
      ports:
        - {name: http, containerPort: 8000}
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 5
        timeoutSeconds: 3
      livenessProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 10
        timeoutSeconds: 3
        failureThreshold: 6
      startupProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 5
        failureThreshold: 60
      {{- end }}
      {{- $resources := deepCopy .resources }}
      {{- if $pool.gpus }}
      {{- $_ := set $resources "limits" (set (deepCopy ($resources.limits | default dict)) $values.gpuResource $pool.gpus) }}
      {{- end }}
      resources: {{ toJson $resources }}
      volumeMounts:
        - {name: secrets, mountPath: /run/secrets/assay, readOnly: true}
        - {name: broker-authority, mountPath: /run/broker, readOnly: true}
        - {name: tmp, mountPath: /tmp}
        {{- range $process.volumes }}
        {{- $name := trimSuffix ":ro" . }}
        {{- if eq $name "transparency" }}
        {{- if not $values.audit.publishUrl }}
        - {name: transparency, mountPath: /var/lib/transparency, readOnly: {{ hasSuffix ":ro" . }}}
        {{- end }}
        {{- else if not (and $values.store.url (eq $name "artifacts")) }}
        - {name: data, mountPath: /var/lib/assay/{{ $name }}, subPath: {{ $name }}, readOnly: {{ hasSuffix ":ro" . }}}
        {{- end }}
        {{- end }}
        {{- if $bucket }}
        - {name: store-cache, mountPath: /var/lib/assay/store-cache}
        {{- end }}
        {{- if .scratch }}
        - {name: scratch, mountPath: /var/lib/scratch}
        {{- end }}
        {{- if .uploads }}
        - {name: uploads, mountPath: /var/lib/uploads}
        {{- end }}
        {{- if .backups }}
        - {name: backups, mountPath: /backups}
        {{- end }}
  volumes:
    - name: secrets
      secret:
        secretName: {{ get $values.existingSecrets .kind }}
        defaultMode: 0440
        items:
          {{- range $name, $file := $process.files }}
          - {key: {{ $file }}, path: {{ $file }}}
          {{- end }}
          {{- if $bucket }}
          - {key: store_access_key_id, path: store_access_key_id}
          - {key: store_secret_access_key, path: store_secret_access_key}
          {{- end }}
    - name: broker-authority
      secret:
        secretName: {{ $values.existingSecrets.brokerAuthority }}
        defaultMode: 0440
        items: [{key: ca.crt, path: ca.crt}]
    - name: tmp
      emptyDir: {medium: Memory, sizeLimit: 256Mi}
    {{- if $process.volumes }}
    - name: data
      persistentVolumeClaim: {claimName: {{ include "assay.claim" (dict "root" $root "name" "data") }}}
    {{- end }}
    {{- if and (has .kind (list "web" "controller" "backup")) (not $values.audit.publishUrl) }}
    - name: transparency
      persistentVolumeClaim: {claimName: {{ include "assay.claim" (dict "root" $root "name" "transparency") }}}
    {{- end }}
    {{- if $bucket }}
    - name: store-cache
      emptyDir: {sizeLimit: {{ $values.store.cache }}}
    {{- end }}
    {{- with .scratch }}
    - name: scratch
      emptyDir: {sizeLimit: {{ . }}}
    {{- end }}
    {{- with .uploads }}
    - name: uploads
      emptyDir: {sizeLimit: {{ . }}}
    {{- end }}
    {{- with .backups }}
    - name: backups
      persistentVolumeClaim: {claimName: {{ . }}}
    {{- end }}
{{- end }}

{{/* Environment of the processes that publish the audit log, or compare backups with it. */}}
{{- define "assay.secondPlace" -}}
- {name: ASSAY_AUDIT_PUBLISH_DIR, value: /var/lib/transparency}
- {name: ASSAY_AUDIT_PUBLISH_URL, value: {{ .Values.audit.publishUrl | quote }}}
- {name: ASSAY_AUDIT_S3_ENDPOINT_URL, value: {{ .Values.audit.endpointUrl | quote }}}
- {name: ASSAY_AUDIT_S3_REGION, value: {{ .Values.audit.region | quote }}}
- {name: ASSAY_AUDIT_RETIRED_KEYS, value: {{ join "," .Values.audit.retiredKeys | quote }}}
- {name: ASSAY_AUDIT_WITNESSES, value: {{ .Values.audit.witnesses | quote }}}
{{- end }}

{{/* Environment of the process migrate. */}}
{{- define "assay.migrateEnvironment" -}}
- {name: ASSAY_PORTAL_URL, value: {{ .Values.portal.url | quote }}}
{{ include "assay.secondPlace" . }}
{{- end }}

{{/* Environment of web and controller, which know the portal and MLflow. */}}
{{- define "assay.portalEnvironment" -}}
- {name: ASSAY_ALLOWED_HOSTS, value: {{ join "," .Values.portal.hosts | quote }}}
- {name: ASSAY_PORTAL_URL, value: {{ .Values.portal.url | quote }}}
- {name: ASSAY_CONTROLLERS, value: {{ .Values.controller.replicas | quote }}}
- {name: MLFLOW_TRACKING_URI, value: {{ include "assay.mlflowUrl" . | quote }}}
{{ include "assay.secondPlace" . }}
{{- end }}
