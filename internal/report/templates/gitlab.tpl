{{- /* GitLab's report of container scanning, schema 15 */ -}}
{{- $r := report -}}
{{- $severities := dict "CRITICAL" "Critical" "HIGH" "High" "MEDIUM" "Medium" "LOW" "Low" "UNKNOWN" "Unknown" -}}
{{- $image := ternary $r.Target.Reference (printf "%s:latest" $r.Target.Reference) (contains ":" $r.Target.Reference) -}}
{{- $time := date "2006-01-02T15:04:05" now -}}
{{- $os := default "Unknown" (trim (cat $r.OS.Family $r.OS.Version)) -}}
{
  "version": "15.0.7",
  "scan": {
    "analyzer": {"id": "gatehouse", "name": "Gatehouse", "url": "https://github.com/gatehouse-dev/gatehouse", "vendor": {"name": "Gatehouse"}, "version": {{ toJson appVersion }}},
    "scanner": {"id": "gatehouse", "name": "Gatehouse", "url": "https://github.com/gatehouse-dev/gatehouse", "vendor": {"name": "Gatehouse"}, "version": {{ toJson appVersion }}},
    "type": "container_scanning",
    "start_time": {{ toJson $time }},
    "end_time": {{ toJson $time }},
    {{- if not $r.Complete }}
    "messages": [{{ range $i, $why := $r.IncompleteReasons }}{{ if $i }}, {{ end }}{"level": "fatal", "value": {{ toJson (printf "incomplete: %s" $why) }}}{{ end }}],
    {{- end }}
    "status": {{ if $r.Complete }}"success"{{ else }}"failure"{{ end }}
  },
  "vulnerabilities": [
  {{- $more := false }}
  {{- range . }}
  {{- range .Vulnerabilities }}
    {{- if $more }},{{ end }}{{ $more = true }}
    {
      "id": {{ toJson (sha256sum (printf "%s %s %s %s %s" $image .VulnerabilityID .PkgName .InstalledVersion .PkgPath)) }},
      "name": {{ toJson (trunc 255 (printf "%s in %s" .VulnerabilityID .PkgName)) }},
      "description": {{ toJson (trunc 15000 (default .Title .Description)) }},
      "severity": {{ toJson (get $severities .Severity) }},
      "solution": {{ if .FixedVersion }}{{ toJson (trunc 7000 (printf "Upgrade %s from %s to %s" .PkgName .InstalledVersion .FixedVersion)) }}{{ else }}"No version that repairs it is known."{{ end }},
      "location": {
        "dependency": {"package": {"name": {{ toJson .PkgName }}}, "version": {{ toJson .InstalledVersion }}},
        "operating_system": {{ toJson $os }},
        "image": {{ toJson $image }}
      },
      "identifiers": [
        {"type": {{ toJson (lower (first (splitList "-" .VulnerabilityID))) }}, "name": {{ toJson .VulnerabilityID }}, "value": {{ toJson .VulnerabilityID }}{{ if .PrimaryURL }}, "url": {{ toJson .PrimaryURL }}{{ end }}}
        {{- range .Aliases }},
        {"type": {{ toJson (lower (first (splitList "-" .))) }}, "name": {{ toJson . }}, "value": {{ toJson . }}}
        {{- end }}
      ],
      "links": [{{ $link := false }}{{ range .References }}{{ if regexMatch "^(https?|ftp)://[^ ]+$" . }}{{ if $link }}, {{ end }}{{ $link = true }}{"url": {{ toJson . }}}{{ end }}{{ end }}]
    }
  {{- end }}
  {{- end }}
  ],
  "remediations": []
}
