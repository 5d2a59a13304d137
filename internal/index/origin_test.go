package index_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
)

// history makes a configuration of steps; those in brackets make no layer.
func history(steps ...string) (cfg gatehouse.ImageConfig) {
	for _, s := range steps {
		inner, empty := strings.CutPrefix(s, "[")
		cfg.History = append(cfg.History, gatehouse.HistoryStep{CreatedBy: strings.TrimSuffix(inner, "]"), EmptyLayer: empty})
	}
	return cfg
}

func layersOf(n int) (layers []gatehouse.LayerInventory) {
	for i := range n {
		layers = append(layers, gatehouse.LayerInventory{DiffID: gatehouse.Digest(fmt.Sprint("sha256:", i))})
	}
	return layers
}

func originRows(origins []gatehouse.LayerOrigin) []string {
	rows := []string{}
	for _, o := range origins {
		base := "own"
		if o.Base {
			base = "base"
		}
		rows = append(rows, base+" "+o.CreatedBy)
	}
	return rows
}

func TestOrigins(t *testing.T) {
	debian := []string{"/bin/sh -c #(nop) ADD file:5d67 in / ", `[/bin/sh -c #(nop)  CMD ["bash"]]`}
	for _, test := range []struct {
		name   string
		layers int
		cfg    gatehouse.ImageConfig
		want   []string
	}{
		{"Docker's builder", 3, history(append(debian, "/bin/sh -c apt-get update", "/bin/sh -c #(nop) COPY file:ab in /app ", `[/bin/sh -c #(nop)  ENTRYPOINT ["/app"]]`, `[/bin/sh -c #(nop)  CMD ["run"]]`)...),
			[]string{"base ADD file:5d67 in /", "own RUN apt-get update", "own COPY file:ab in /app"}},
		{"BuildKit", 3, history(append(debian, "RUN /bin/sh -c apk add curl # buildkit", "[ENV A=b]", "COPY . /app # buildkit", `[CMD ["/app"]]`)...),
			[]string{"base ADD file:5d67 in /", "own RUN apk add curl", "own COPY . /app"}},
		{"base of a base", 3, history(append(debian, "RUN /bin/sh -c install python # buildkit", `[CMD ["python3"]]`, "COPY app / # buildkit", "[USER 1000]")...),
			[]string{"base ADD file:5d67 in /", "base RUN install python", "own COPY app /"}},
		{"a base image itself", 1, history(debian...), []string{"own ADD file:5d67 in /"}},
		{"without CMD in the base", 2, history("ADD rootfs.tar /", "COPY app /", `[CMD ["/app"]]`), []string{"own ADD rootfs.tar /", "own COPY app /"}},
		{"ENTRYPOINT ends a base", 2, history("ADD rootfs.tar /", `[ENTRYPOINT ["/entry"]]`, "COPY app /"), []string{"base ADD rootfs.tar /", "own COPY app /"}},
		{"no history", 2, gatehouse.ImageConfig{}, []string{"own ", "own "}},
		{"history of other layers", 2, history(append(debian, "RUN a", "RUN b", "RUN c")...), []string{"own ", "own "}},
		{"command that only mentions CMD", 2, history("ADD a /", "[LABEL x=CMD y]", "RUN b"), []string{"own ADD a /", "own RUN b"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if d := cmp.Diff(test.want, originRows(index.Origins(layersOf(test.layers), test.cfg))); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
	long := index.Origins(layersOf(1), history("RUN "+strings.Repeat("é", 5000)))
	if n := len(long[0].CreatedBy); n > 2100 {
		t.Errorf("a step of %d bytes was kept", n)
	}
}

// TestPackageHasStep: a package leads to the step that brought it.
func TestPackageHasStep(t *testing.T) {
	layers, _ := composeOf(t,
		[]entry{{name: "etc/os-release", body: "ID=alpine\nVERSION_ID=3.20.3\n"}, {name: "lib/apk/db/installed", body: apkBody("musl=1")}},
		[]entry{{name: "lib/apk/db/installed", body: apkBody("musl=1", "curl=8")}},
		[]entry{{name: "app/node_modules/a/package.json", body: npmBody("a", "1.0.0")}})
	cfg := history("ADD alpine.tar /", `[CMD ["/bin/sh"]]`, "RUN apk add curl", "COPY app /app")
	for _, l := range layers {
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, l.DiffID)
	}
	inv := index.Compose(layers, cfg, "")
	want := map[string]string{"musl": "base ADD alpine.tar /", "curl": "own RUN apk add curl", "a": "own COPY app /app"}
	for _, p := range inv.Packages {
		o, ok := inv.Origin(p.Layer)
		if got := originRows([]gatehouse.LayerOrigin{o})[0]; !ok || got != want[p.Name] {
			t.Errorf("%s: %q %v, want %q", p.Name, got, ok, want[p.Name])
		}
	}
	if _, ok := inv.Origin("sha256:none"); ok {
		t.Error("a layer that is not there has an origin")
	}
}
