{{- define "neatlogs-processor.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "neatlogs-processor.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 54 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 54 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 54 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "neatlogs-processor.selectorLabels" -}}
app.kubernetes.io/name: {{ include "neatlogs-processor.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "neatlogs-processor.labels" -}}
{{ include "neatlogs-processor.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The port of a listener; empty where there is no such listener. */}}
{{- define "neatlogs-processor.port" -}}
{{- regexFind "[0-9]+$" (toString .) }}
{{- end }}

{{- /* A duration of the configuration in whole seconds, rounded up. */}}
{{- define "neatlogs-processor.seconds" -}}
{{- $number := float64 (regexFind "^[0-9.]+" (toString .)) }}
{{- $unit := regexFind "[a-z]+$" (toString .) }}
{{- $factor := get (dict "" 1 "ms" 0.001 "s" 1 "m" 60 "h" 3600 "d" 86400) $unit }}
{{- ceil (mulf $number (float64 $factor)) | int64 }}
{{- end }}

{{- /* The settings as flags. Files of secrets are where the volumes are mounted. */}}
{{- define "neatlogs-processor.args" -}}
{{- $config := deepCopy .Values.config }}
{{- range $key, $file := .Values.secretFiles }}
{{- $_ := set $config $key (printf "/etc/neatlogs-processor/%s/%s" (include "neatlogs-processor.volume" $key) $file.key) }}
{{- end }}
{{- range $key := keys $config | sortAlpha }}
{{- $value := get $config $key }}
{{- $flag := $key | replace "_" "-" }}
{{- if kindIs "bool" $value }}
- --{{ ternary "" "no-" $value }}{{ $flag }}
{{- else if kindIs "slice" $value }}
- {{ printf "--%s=%s" $flag (join "," $value) | quote }}
{{- else if and (kindIs "float64" $value) (eq (floor $value) $value) }}
- {{ printf "--%s=%d" $flag (int64 $value) | quote }}
{{- else if not (kindIs "invalid" $value) }}
- {{ printf "--%s=%v" $flag $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The volume of a setting that names a file: upstream_headers_file is in upstream-headers. */}}
{{- define "neatlogs-processor.volume" -}}
{{- . | trimSuffix "_file" | replace "_" "-" }}
{{- end }}
