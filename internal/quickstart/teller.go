package quickstart

import (
	"fmt"
	"io"
	"regexp"
	"strings"
)

// teller prints the story as it happens and remembers whether it came out as
// told.
type teller struct {
	w     io.Writer
	steps int
	ok    bool
	rows  []tableRow
	// lastDenied is the id of the last denial, to explain.
	lastDenied string
}

type tableRow struct {
	pod     pod
	allowed bool
}

func (t *teller) say(text string) { fmt.Fprint(t.w, text) }

func (t *teller) step(title string) {
	t.steps++
	fmt.Fprintf(t.w, "\n%d. %s\n", t.steps, title)
}

func (t *teller) line(format string, args ...any) {
	fmt.Fprintln(t.w, strings.TrimRight("   "+fmt.Sprintf(format, args...), " "))
}

// check marks a step that did not come out as told.
func (t *teller) check(ok bool) {
	if !ok {
		t.ok = false
		t.line("NOT AS TOLD")
	}
}

var decisionID = regexp.MustCompile(`decision[: ]+([0-9a-zA-Z-]+)`)

// pod tells what the webhook answered about a Pod, whole.
func (t *teller) pod(p pod, allowed bool, message string) {
	t.line("%-8s  %s   %s", strings.ToUpper(word(allowed)), p.image, p.because)
	for line := range strings.SplitSeq(strings.TrimSpace(message), "\n") {
		if line != "" {
			t.line("          | %s", line)
		}
	}
	if m := decisionID.FindStringSubmatch(message); m != nil && !allowed {
		t.lastDenied = m[1]
	}
	t.check(allowed == p.allowed)
	t.rows = append(t.rows, tableRow{p, allowed})
}

func (t *teller) table() {
	fmt.Fprintf(t.w, "\n%-38s %-10s %s\n", "Pod", "Answer", "As told")
	fmt.Fprintf(t.w, "%s %s %s\n", strings.Repeat("─", 38), strings.Repeat("─", 10), strings.Repeat("─", 7))
	for _, r := range t.rows {
		told := "yes"
		if r.allowed != r.pod.allowed {
			told = "NO"
		}
		fmt.Fprintf(t.w, "%-38s %-10s %s\n", r.pod, word(r.allowed), told)
	}
}
