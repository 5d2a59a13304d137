package gatehouse_test

import (
	"testing"

	"github.com/gatehouse-dev/gatehouse"
)

func TestForeign(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"plain text", "plain text"},
		{"  two\r\n\tlines\u2028 and more ", "two lines and more"},
		{"\x1b[2J\u202egone\x00", "?[2J?gone?"},
		{"\xff\xfe", "\ufffd\ufffd"},
		{"exactly twenty bytes", "exactly twenty bytes"},
		{"more than twenty byte", "more than twenty byt…"},
		{"cut within a rune: é!", "cut within a rune: …"},
		{"", ""},
	} {
		if got := gatehouse.Foreign(c.text, 20); got != c.want {
			t.Errorf("Foreign(%q) = %q, want %q", c.text, got, c.want)
		}
	}
}
