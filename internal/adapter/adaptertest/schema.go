// Package adaptertest does what Harbor does with a scanner adapter, and checks
// every answer against what version 1.2 of the pluggable scanner API demands.
// The checks are written from the document, not from our server.
package adaptertest

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"
)

// shape is what a value must be.
type shape func(path string, v any) []string

func fail(path, format string, args ...any) []string {
	return []string{path + ": " + fmt.Sprintf(format, args...)}
}

func text(path string, v any) []string {
	if _, ok := v.(string); !ok {
		return fail(path, "%T is no string", v)
	}
	return nil
}

func filled(path string, v any) []string {
	if s, ok := v.(string); !ok || s == "" {
		return fail(path, "%v is no string with something in it", v)
	}
	return nil
}

func number(path string, v any) []string {
	if n, ok := v.(float64); !ok || math.IsNaN(n) {
		return fail(path, "%v is no number", v)
	}
	return nil
}

// moment is format date-time of OpenAPI: RFC 3339, section 5.6.
func moment(path string, v any) []string {
	s, _ := v.(string)
	if _, err := time.Parse(time.RFC3339Nano, s); err != nil {
		return fail(path, "%v is no date-time", v)
	}
	return nil
}

func uri(path string, v any) []string {
	s, _ := v.(string)
	if u, err := url.Parse(s); err != nil || !u.IsAbs() {
		return fail(path, "%v is no URI", v)
	}
	return nil
}

func one(words ...string) shape {
	return func(path string, v any) []string {
		if s, ok := v.(string); !ok || !slices.Contains(words, s) {
			return fail(path, "%v is none of %s", v, strings.Join(words, ", "))
		}
		return nil
	}
}

func list(of shape) shape {
	return func(path string, v any) []string {
		l, ok := v.([]any)
		if !ok {
			return fail(path, "%T is no array", v)
		}
		var out []string
		for i, x := range l {
			out = append(out, of(fmt.Sprintf("%s[%d]", path, i), x)...)
		}
		return out
	}
}

func values(of shape) shape {
	return func(path string, v any) []string {
		m, ok := v.(map[string]any)
		if !ok {
			return fail(path, "%T is no object", v)
		}
		var out []string
		for k, x := range m {
			out = append(out, of(path+"."+k, x)...)
		}
		return out
	}
}

func anything(string, any) []string { return nil }

// object has the given fields and no others: the document names all that there
// are. Those in must may not be missing.
func object(fields map[string]shape, must ...string) shape {
	return func(path string, v any) []string {
		m, ok := v.(map[string]any)
		if !ok {
			return fail(path, "%T is no object", v)
		}
		var out []string
		for _, k := range must {
			if _, has := m[k]; !has {
				out = append(out, fail(path+"."+k, "it is missing")...)
			}
		}
		for k, x := range m {
			of, known := fields[k]
			if !known {
				out = append(out, fail(path+"."+k, "the API has no such field")...)
				continue
			}
			out = append(out, of(path+"."+k, x)...)
		}
		return out
	}
}

var (
	scanner  = object(map[string]shape{"name": filled, "vendor": filled, "version": filled}, "name", "vendor", "version")
	artifact = object(map[string]shape{"repository": filled, "digest": filled, "tag": text, "mime_type": filled}, "repository", "digest", "mime_type")
	severity = one("Unknown", "Negligible", "Low", "Medium", "High", "Critical")
	bills    = list(one("application/spdx+json", "application/vnd.cyclonedx+json"))

	metadata = object(map[string]shape{
		"scanner": scanner,
		"capabilities": list(object(map[string]shape{
			"type":                  one("vulnerability", "sbom"),
			"consumes_mime_types":   list(filled),
			"produces_mime_types":   list(filled),
			"additional_attributes": object(map[string]shape{"sbom_media_types": bills}),
		}, "consumes_mime_types", "produces_mime_types")),
		"properties": values(text),
	}, "scanner", "capabilities")

	scanRequest = object(map[string]shape{
		"registry": object(map[string]shape{"url": uri, "authorization": text}),
		"artifact": artifact,
		"enabled_capabilities": list(object(map[string]shape{
			"type":                one("vulnerability", "sbom"),
			"produces_mime_types": list(filled),
			"parameters":          object(map[string]shape{"sbom_media_types": bills}),
		}, "type")),
	}, "registry", "artifact")

	scanResponse = object(map[string]shape{"id": filled}, "id")
	problem      = object(map[string]shape{"error": object(map[string]shape{"message": filled}, "message")}, "error")

	vulnerabilities = object(map[string]shape{
		"generated_at": moment, "artifact": artifact, "scanner": scanner, "severity": severity,
		"vulnerabilities": list(object(map[string]shape{
			"id": filled, "package": filled, "version": filled, "fix_version": text, "severity": severity, "description": text,
			"links": list(uri), "cwe_ids": list(filled), "vendor_attributes": values(anything),
			"preferred_cvss": object(map[string]shape{"score_v3": number, "score_v2": number, "vector_v3": text, "vector_v2": text}),
		}, "id", "package", "version", "severity", "links")),
	}, "generated_at", "artifact", "scanner", "severity", "vulnerabilities")

	bill = object(map[string]shape{
		"generated_at": moment, "artifact": artifact, "scanner": scanner, "vendor_attributes": values(anything),
		"media_type": one("application/spdx+json", "application/vnd.cyclonedx+json"), "sbom": values(anything),
	}, "generated_at", "artifact", "scanner", "media_type", "sbom")
)
