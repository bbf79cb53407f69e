{{- /* The pod, the same whatever it belongs to. */}}
{{- define "neatlogs-processor.pod" -}}
{{- $stateful := eq .Values.mode "statefulset" }}
metadata:
  labels:
    {{- include "neatlogs-processor.selectorLabels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "neatlogs-processor.fullname" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- /* What the processor may take at most (its delay, its timeout, its last ten seconds), and a little more. */}}
  terminationGracePeriodSeconds: {{ add (include "neatlogs-processor.seconds" (.Values.config.drain_delay | default "0s")) (include "neatlogs-processor.seconds" (.Values.config.shutdown_timeout | default "10s")) 15 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: neatlogs-processor
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        {{- include "neatlogs-processor.args" . | trim | nindent 8 }}
      ports:
        {{- with include "neatlogs-processor.port" .Values.config.grpc_listen }}
        - name: otlp-grpc
          containerPort: {{ . }}
          protocol: TCP
        {{- end }}
        {{- with include "neatlogs-processor.port" .Values.config.http_listen }}
        - name: otlp-http
          containerPort: {{ . }}
          protocol: TCP
        {{- end }}
        - name: admin
          containerPort: {{ include "neatlogs-processor.port" .Values.config.admin_listen }}
          protocol: TCP
      startupProbe:
        httpGet:
          path: /readyz
          port: admin
        periodSeconds: 1
        timeoutSeconds: 5
        failureThreshold: 60
      readinessProbe:
        httpGet:
          path: /readyz
          port: admin
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 2
      livenessProbe:
        httpGet:
          path: /healthz
          port: admin
        periodSeconds: 20
        timeoutSeconds: 5
        failureThreshold: 3
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      {{- if or .Values.secretFiles $stateful }}
      volumeMounts:
        {{- if $stateful }}
        - name: data
          mountPath: {{ .Values.persistence.mountPath }}
        {{- end }}
        {{- range $key, $_ := .Values.secretFiles }}
        - name: {{ include "neatlogs-processor.volume" $key }}
          mountPath: /etc/neatlogs-processor/{{ include "neatlogs-processor.volume" $key }}
          readOnly: true
        {{- end }}
      {{- end }}
  {{- with .Values.secretFiles }}
  volumes:
    {{- range $key, $file := . }}
    - name: {{ include "neatlogs-processor.volume" $key }}
      secret:
        secretName: {{ $file.secret }}
        {{- /* For the processor's group alone. */}}
        defaultMode: 0440
    {{- end }}
  {{- end }}
  {{- if ne .Values.mode "daemonset" }}
  topologySpreadConstraints:
    {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "neatlogs-processor.selectorLabels" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
