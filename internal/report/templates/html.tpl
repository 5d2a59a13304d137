<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ escapeXML report.Target.Reference }}: scan report</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: #1b1f24; background: #fff }
table { border-collapse: collapse; width: 100%; margin: .6rem 0 1.6rem }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #d0d7de }
th { background: #f6f8fa }
td { overflow-wrap: anywhere }
td.s { white-space: nowrap; font-weight: 600 }
.CRITICAL td.s { color: #a40e26 } .HIGH td.s { color: #bc4c00 } .MEDIUM td.s { color: #7d5900 }
.warning { border-left: 4px solid #bc4c00; padding: .4rem .8rem; background: #fff8f0 }
small { color: #57606a }
</style>
</head>
<body>
{{- $r := report }}
<h1>{{ escapeXML $r.Target.Reference }}</h1>
<p>
{{- if $r.OS.Family }}{{ escapeXML $r.OS.Family }} {{ escapeXML $r.OS.Version }} · {{ end }}
{{- if $r.Target.Digest }}<small>{{ escapeXML (toString $r.Target.Digest) }}</small> · {{ end }}
{{- date "2006-01-02 15:04 MST" now }} · Gatehouse {{ escapeXML appVersion }}</p>
{{- if not $r.Complete }}
<div class="warning"><strong>Incomplete.</strong> This result proves nothing about what could not be looked at:
<ul>{{ range $r.IncompleteReasons }}<li>{{ escapeXML . }}</li>{{ end }}</ul></div>
{{- end }}
{{- if endOfLife }}
<div class="warning"><strong>{{ escapeXML $r.OS.Family }} {{ escapeXML $r.OS.Version }} gets no more fixes.</strong> New flaws in it may never be listed.</div>
{{- end }}
<p>{{ with $r.Summary }}<strong>{{ .Total }} findings</strong>: {{ .Critical }} critical, {{ .High }} high, {{ .Medium }} medium, {{ .Low }} low, {{ .Negligible }} negligible, {{ .Unknown }} unknown{{ end }}
{{- if $r.Suppressed }}; {{ $r.Suppressed }} suppressed{{ end }}.</p>
{{- range . }}
{{- if .Vulnerabilities }}
<h2>{{ escapeXML .Target }}</h2>
<table>
<tr><th>Package</th><th>Vulnerability</th><th>Severity</th><th>Installed</th><th>Fixed</th><th>Title</th></tr>
{{- range .Vulnerabilities }}
<tr class="{{ escapeXML .Severity }}"><td>{{ escapeXML .PkgName }}{{ if .PkgPath }}<br><small>{{ escapeXML .PkgPath }}</small>{{ end }}</td>
<td>{{ if .PrimaryURL }}<a href="{{ escapeXML .PrimaryURL }}" rel="noreferrer">{{ escapeXML .VulnerabilityID }}</a>{{ else }}{{ escapeXML .VulnerabilityID }}{{ end }}
{{- if .Aliases }}<br><small>{{ escapeXML (join ", " .Aliases) }}</small>{{ end }}</td>
<td class="s">{{ escapeXML .Severity }}{{ if .KEV }}<br>exploited{{ end }}</td>
<td>{{ escapeXML .InstalledVersion }}</td><td>{{ if .FixedVersion }}{{ escapeXML .FixedVersion }}{{ else }}<small>{{ escapeXML .Status }}</small>{{ end }}</td>
<td>{{ escapeXML .Title }}{{ if .Base }}<br><small>from the base image</small>{{ else if .Step }}<br><small>{{ escapeXML (abbrev 120 .Step) }}</small>{{ end }}</td></tr>
{{- end }}
</table>
{{- end }}
{{- if .Secrets }}
<h2>Secrets in {{ escapeXML .Target }}</h2>
<table>
<tr><th>Rule</th><th>Severity</th><th>Line</th><th>Found</th></tr>
{{- range .Secrets }}
<tr class="{{ escapeXML .Severity }}"><td>{{ escapeXML .RuleID }}<br><small>{{ escapeXML .Title }}</small></td><td class="s">{{ escapeXML .Severity }}</td>
<td>{{ .StartLine }}</td><td><code>{{ escapeXML .Match }}</code>{{ if .Deleted }}<br><small>deleted by a later layer; whoever pulls the image can still read it</small>{{ end }}</td></tr>
{{- end }}
</table>
{{- end }}
{{- if .Misconfigurations }}
<h2>{{ if eq .Type "malware" }}Malware in {{ else }}Configuration of {{ end }}{{ escapeXML .Target }}</h2>
<table>
<tr><th>Id</th><th>Severity</th><th>What</th><th>How to fix</th></tr>
{{- range .Misconfigurations }}
<tr class="{{ escapeXML .Severity }}"><td>{{ escapeXML .ID }}</td><td class="s">{{ escapeXML .Severity }}</td>
<td>{{ escapeXML .Title }}<br><small>{{ escapeXML .CauseMetadata.Resource }} {{ escapeXML .Message }}</small></td><td>{{ escapeXML .Resolution }}</td></tr>
{{- end }}
</table>
{{- end }}
{{- if .Licenses }}
<h2>Licences in {{ escapeXML .Target }}</h2>
<table>
<tr><th>Licence</th><th>Severity</th><th>Package</th><th>Category</th></tr>
{{- range .Licenses }}
<tr class="{{ escapeXML .Severity }}"><td>{{ escapeXML .Name }}</td><td class="s">{{ escapeXML .Severity }}</td><td>{{ escapeXML .PkgName }}</td><td>{{ escapeXML .Category }}</td></tr>
{{- end }}
</table>
{{- end }}
{{- end }}
</body>
</html>
