package operator

import (
	"testing"
	"time"
)

// TestMutatingWebhookIsAskedAgain: a Pod to which another webhook adds a container comes
// again, which it does not where a condition kept it away the first time.
func TestMutatingWebhookIsAskedAgain(t *testing.T) {
	for _, mutate := range []string{MutatePods, MutateAll} {
		w := Webhook{URL: "https://gatehouse.example", Mutate: mutate, Timeout: 10 * time.Second, Fail: true}
		_, o, err := w.configurations("gatehouse", []byte("bundle"))
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range o.Object["webhooks"].([]any) {
			hook := h.(map[string]any)
			if hook["reinvocationPolicy"] != "IfNeeded" || hook["matchConditions"] != nil || hook["objectSelector"] != nil {
				t.Errorf("%s: %v", mutate, hook)
			}
		}
	}
}
