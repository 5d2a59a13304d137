package operator

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestLookupsAreBounded: of what policies look up the largest kind is left out as a whole
// where all of it has too many bytes or objects, which is told; it is never there in part.
// The others stay, and it comes back when there is room.
func TestLookupsAreBounded(t *testing.T) {
	tool.Need(t, "kube-apiserver")
	k := e2e.StartKube(t, e2e.KubeOptions{})
	var log lines
	v, err := NewView(ViewOptions{Client: clientOf(t, k), Namespace: "home", Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	at := &clock{now: time.Now()}
	v.inventory.bytesMax, v.inventory.now = 64<<10, at.read
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	defer func() { cancel(); <-done }()
	k.Namespace(t, "shop", nil)
	maps := "/api/v1/namespaces/shop/configmaps"
	add := func(name string, size int) {
		k.Must(t, http.MethodPost, maps, map[string]any{"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{"name": name}, "data": map[string]string{"x": strings.Repeat("x", size)}})
	}
	namespaces, configMaps := gatehouse.ObjectKind{Version: "v1", Kind: "Namespace"}, gatehouse.ObjectKind{Version: "v1", Kind: "ConfigMap"}
	has := func(kinds ...gatehouse.ObjectKind) func() bool {
		return func() bool {
			inv := v.Inventory()
			if inv == nil {
				return false
			}
			for _, o := range inv.Objects {
				if !slices.Contains(inv.Kinds, o.Kind) {
					t.Errorf("%s %s is there, and not its kind", o.Kind.Kind, o.Name)
				}
			}
			return len(inv.Kinds) == len(kinds) && !slices.ContainsFunc(kinds, func(k gatehouse.ObjectKind) bool { return !slices.Contains(inv.Kinds, k) })
		}
	}
	add("small", 100)
	v.Lookup([]gatehouse.ObjectKind{namespaces, configMaps})
	eventually(t, "both kinds are copied", has(namespaces, configMaps))
	add("large", 100<<10)
	eventually(t, "the large kind is left out", has(namespaces))
	eventually(t, "it is told", func() bool { return strings.Contains(log.String(), "not copied is ConfigMap") })
	if strings.Contains(log.String(), "not copied is Namespace") {
		t.Error("the small kind is left out, too")
	}

	// What is too large from the start is not copied in part either.
	k.Must(t, http.MethodDelete, maps+"/large", nil)
	for _, name := range []string{"a", "b", "c", "d"} {
		add(name, 60<<10)
	}
	at.pass(largeAgain + time.Second)
	poke(v.regroup)
	eventually(t, "it was tried again", func() bool {
		v.inventory.mu.Lock()
		defer v.inventory.mu.Unlock()
		for _, until := range v.inventory.large {
			return until.After(at.read())
		}
		return false
	})
	eventually(t, "the large kind is left out again", has(namespaces))

	for _, name := range []string{"a", "b", "c", "d"} {
		k.Must(t, http.MethodDelete, maps+"/"+name, nil)
	}
	at.pass(largeAgain + time.Second)
	poke(v.regroup)
	eventually(t, "there is room", has(namespaces, configMaps))
}
