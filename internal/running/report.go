package running

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gatehouse-dev/gatehouse"
)

// Limits of one report. All of it stays far below what etcd takes in one object.
const (
	ResultsMax = 400
	messageMax = 600 // bytes
	nameMax    = 300
)

// ReportName is the name of our report in each namespace, and Source who made it.
const (
	ReportName = "gatehouse-running"
	Source     = "gatehouse"
)

// Standing is what was decided of the Pods of one template that one workload owns.
type Standing struct {
	Workload Workload
	Pods     int
	Images   []Image
	Verdict  gatehouse.Verdict
	// Unknown: something could not be found out, and nothing was known before.
	Unknown  bool
	Reasons  []gatehouse.Reason // those that object, or warn
	Decision string             // explains it
	Since    time.Time          // this verdict, for these reasons
}

// Key tells whether two standings are told as one: verdict and reasons, whatever the
// words and the numbers in them are.
func (s Standing) Key() string {
	var parts []string
	for _, r := range s.Reasons {
		parts = append(parts, fmt.Sprintf("%s %s %s %s", r.Verdict, r.Policy, r.Code, r.Image))
	}
	slices.Sort(parts)
	return fmt.Sprintf("%s %t\n%s", s.Verdict, s.Unknown, strings.Join(slices.Compact(parts), "\n"))
}

// summary are the counts of a report.
type summary struct{ pass, fail, warn, failed int }

// Report is the body of a PolicyReport (wgpolicyk8s.io/v1alpha2) and of a Report
// (openreports.io/v1alpha1), which have the same fields: what is wrong with the workloads
// of one namespace, denials first, at most ResultsMax results, and how many are well. It
// is a function of the standings: equal ones give equal reports.
func Report(namespace string, all []Standing) map[string]any {
	all = slices.SortedFunc(slices.Values(all), func(a, b Standing) int {
		return cmp.Or(cmp.Compare(a.Verdict, b.Verdict), cmp.Compare(a.Workload.Kind, b.Workload.Kind),
			cmp.Compare(a.Workload.Name, b.Workload.Name), cmp.Compare(a.Key(), b.Key()), cmp.Compare(a.Decision, b.Decision))
	})
	var n summary
	var results []any
	left, well, newest := 0, 0, time.Time{}
	for _, s := range all {
		if len(s.Reasons) == 0 {
			n.pass++
			well++
			if s.Since.After(newest) {
				newest = s.Since
			}
			continue
		}
		for _, r := range s.Reasons {
			word := n.count(s, r)
			if len(results) == ResultsMax {
				left++
				continue
			}
			results = append(results, result(s, r, word))
		}
	}
	if left > 0 {
		results = append(results, general("more", "skip", fmt.Sprintf("%d more results are not listed; GET /api/v1/running?namespace=%s has them", left, namespace), time.Time{}))
	}
	if well > 0 {
		results = append(results, general("passed", "pass", fmt.Sprintf("nothing speaks against %d workloads", well), newest))
	}
	return map[string]any{
		"scope": map[string]any{"apiVersion": "v1", "kind": "Namespace", "name": namespace},
		"summary": map[string]any{
			"pass": int64(n.pass), "fail": int64(n.fail), "warn": int64(n.warn), "error": int64(n.failed), "skip": int64(0),
		},
		"results": results,
	}
}

// count counts one result, and returns its word.
func (n *summary) count(s Standing, r gatehouse.Reason) string {
	switch {
	case s.Unknown && r.Verdict == gatehouse.Deny:
		n.failed++
		return "error"
	case r.Verdict == gatehouse.Deny:
		n.fail++
		return "fail"
	}
	n.warn++
	return "warn"
}

func result(s Standing, r gatehouse.Reason, word string) map[string]any {
	message := r.Message
	if r.Hint != "" {
		message += " (" + r.Hint + ")"
	}
	properties := map[string]any{"pods": fmt.Sprint(s.Pods), "decision": s.Decision}
	if r.Image != "" {
		properties["image"] = clip(r.Image, nameMax)
	}
	for _, i := range s.Images {
		if i.Name == r.Image && i.Digest != "" {
			properties["digest"] = string(i.Digest)
		}
	}
	subject := map[string]any{
		"apiVersion": s.Workload.APIVersion, "kind": s.Workload.Kind, "namespace": s.Workload.Namespace, "name": s.Workload.Name,
	}
	if s.Workload.UID != "" {
		subject["uid"] = s.Workload.UID
	}
	return map[string]any{
		"source": Source, "policy": cmp.Or(clip(r.Policy, nameMax), Source), "rule": r.Code, "category": "Images",
		"severity": severityOf(word), "result": word, "scored": word == "fail",
		"timestamp": timestamp(s.Since), "resources": []any{subject}, "message": clip(message, messageMax), "properties": properties,
	}
}

// general is a result about the namespace as a whole.
func general(rule, word, message string, at time.Time) map[string]any {
	return map[string]any{
		"source": Source, "policy": Source, "rule": rule, "category": "Images", "severity": "info", "result": word, "scored": false,
		"timestamp": timestamp(at), "message": message,
	}
}

func severityOf(word string) string {
	switch word {
	case "fail":
		return "high"
	case "error":
		return "medium"
	}
	return "low"
}

// timestamp is a Timestamp of the Kubernetes API; zero is the beginning of 1970.
func timestamp(t time.Time) map[string]any {
	var seconds int64
	if !t.IsZero() {
		seconds = t.Unix()
	}
	return map[string]any{"seconds": seconds, "nanos": int64(0)}
}

// clip shortens a text to at most max bytes and an ellipsis, at a character's end.
func clip(s string, max int) string {
	if len(s) <= max {
		return s
	}
	for max > 0 && !utf8.RuneStart(s[max]) {
		max--
	}
	return s[:max] + "…"
}
