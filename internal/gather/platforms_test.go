package gather_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
)

// cabinet is a registry of what a test has put there.
type cabinet map[gatehouse.Digest][]byte

func (s cabinet) put(b []byte) gatehouse.Digest { d := gatehouse.DigestOf(b); s[d] = b; return d }

func (s cabinet) image(config string) gatehouse.Digest {
	return s.put(fmt.Appendf(nil, `{"config":{"digest":%q}}`, s.put([]byte(config))))
}

// index lists manifests by "os/arch digest".
func (s cabinet) index(children ...string) gatehouse.Digest {
	var list []string
	for _, c := range children {
		platform, digest, _ := strings.Cut(c, " ")
		os, arch, _ := strings.Cut(platform, "/")
		list = append(list, fmt.Sprintf(`{"digest":%q,"platform":{"os":%q,"architecture":%q}}`, digest, os, arch))
	}
	return s.put([]byte(`{"manifests":[` + strings.Join(list, ",") + `]}`))
}

func (s cabinet) Manifest(_ context.Context, repo gatehouse.Repo, d gatehouse.Digest) (*gatehouse.Manifest, error) {
	if s[d] == nil {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "no manifest %s", d)
	}
	return &gatehouse.Manifest{Repo: repo, Body: s[d]}, nil
}

type drawer struct{ *bytes.Reader }

func (drawer) Close() error { return nil }

func (s cabinet) OpenBlob(_ context.Context, _ gatehouse.Repo, d gatehouse.Digest) (*gatehouse.Blob, error) {
	if s[d] == nil {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "no blob %s", d)
	}
	return &gatehouse.Blob{Body: drawer{bytes.NewReader(s[d])}}, nil
}

func TestReadPlatforms(t *testing.T) {
	s := cabinet{}
	amd := s.image(`{"os":"linux","architecture":"amd64"}`)
	arm := s.image(`{"os":"linux","architecture":"arm","variant":"v7"}`)
	windows := s.image(`{"os":"windows","architecture":"amd64","os.version":"10.0.1"}`)
	built := s.image(`{"os":"unknown","architecture":"unknown"}`)
	deep := s.index("linux/amd64 " + string(amd))
	for range 4 {
		deep = s.index("linux/amd64 " + string(deep))
	}
	var many []string
	for i := range 101 {
		many = append(many, "linux/amd64 "+string(s.image(fmt.Sprintf(`{"os":"linux","architecture":"a%d"}`, i))))
	}
	for name, c := range map[string]struct {
		digest gatehouse.Digest
		want   string
		code   gatehouse.Code
	}{
		"an image":           {digest: arm, want: "linux/arm/v7"},
		"an index":           {digest: s.index("linux/amd64 "+string(amd), "linux/arm "+string(arm), "windows/amd64 "+string(windows), "unknown/unknown "+string(built)), want: "linux/amd64 linux/arm/v7 windows/amd64:10.0.1"},
		"an index inside":    {digest: s.index("linux/amd64 " + string(s.index("linux/amd64 "+string(amd)))), want: "linux/amd64"},
		"nothing":            {digest: s.index(), want: ""},
		"too deep":           {digest: deep, code: gatehouse.CodeTooLarge},
		"too many":           {digest: s.index(many...), code: gatehouse.CodeTooLarge},
		"one platform twice": {digest: s.index("linux/amd64 "+string(amd), "linux/arm64 "+string(s.image(`{"os":"linux","architecture":"amd64","x":1}`))), code: gatehouse.CodeInvalid},
		"a child is absent":  {digest: s.index("linux/amd64 " + string(gatehouse.DigestOf([]byte("absent")))), code: gatehouse.CodeNotFound},
		"no JSON":            {digest: s.put([]byte("x")), code: gatehouse.CodeInvalid},
		"no configuration":   {digest: s.image("x"), code: gatehouse.CodeInvalid},
		"too large":          {digest: s.image(`{"os":"` + strings.Repeat("x", 8<<20) + `"}`), code: gatehouse.CodeTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			configs, err := gather.ReadPlatforms(t.Context(), s, gatehouse.Ref{Registry: "r.example", Repo: "a", Digest: c.digest})
			if got := strings.Join(slices.Sorted(maps.Keys(configs)), " "); got != c.want || gatehouse.CodeOf(err) != c.code {
				t.Errorf("%q, %v", got, err)
			}
			for _, b := range configs {
				if !json.Valid(b) {
					t.Errorf("%s", b)
				}
			}
		})
	}
}

func FuzzReadPlatforms(f *testing.F) {
	f.Add([]byte(`{"config":{"digest":"sha256:00"}}`), []byte(`{"os":"linux","architecture":"amd64"}`))
	f.Add([]byte(`{"manifests":[{"digest":"self"},{"digest":"self"}]}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, manifest, config []byte) {
		configs, err := gather.ReadPlatforms(t.Context(), loop{manifest, config}, gatehouse.Ref{Registry: "r.example", Repo: "a", Digest: gatehouse.DigestOf(manifest)})
		if (err != nil) != (configs == nil) || len(configs) > 100 {
			t.Errorf("%d configurations, %v", len(configs), err)
		}
	})
}

// loop is a registry in which every manifest and every configuration is the same.
type loop struct{ manifest, config []byte }

func (l loop) Manifest(context.Context, gatehouse.Repo, gatehouse.Digest) (*gatehouse.Manifest, error) {
	return &gatehouse.Manifest{Body: l.manifest}, nil
}

func (l loop) OpenBlob(context.Context, gatehouse.Repo, gatehouse.Digest) (*gatehouse.Blob, error) {
	return &gatehouse.Blob{Body: drawer{bytes.NewReader(l.config)}}, nil
}
