package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestInvoked: a link in containerd's directory is the command that it is named
// after, and containerd's flags are understood.
func TestInvoked(t *testing.T) {
	for _, tt := range []struct{ args, want []string }{
		{[]string{"/usr/local/bin/gatehouse", "serve", "-v"}, []string{"serve", "-v"}},
		{[]string{"/x/gatehouse-image-verifier", "-name", "a", "-digest=b"}, []string{"image-verifier", "--name", "a", "--digest=b"}},
		{[]string{"/x/gatehouse-image-verifier-2", "-stdin-media-type", "-name"}, []string{"image-verifier", "--stdin-media-type", "--name"}},
		{[]string{"gatehouse-credential-provider"}, []string{"credential-provider"}},
		{[]string{"gatehouse", "policy", "-name"}, []string{"policy", "-name"}},
		{[]string{"gatehouse"}, []string{}},
		{nil, nil},
	} {
		if d := cmp.Diff(tt.want, containerdFlags(invoked(tt.args))); d != "" {
			t.Errorf("%v: %s", tt.args, d)
		}
	}
}
