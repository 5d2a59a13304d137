package misconfig_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/misconfig"
)

func ids(findings []gatehouse.Finding) string {
	var list []string
	for _, f := range findings {
		list = append(list, f.ID)
	}
	slices.Sort(list)
	return strings.Join(slices.Compact(list), ",")
}

// TestImage runs testdata/images.txtar.
func TestImage(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/images.txtar")
	if err != nil || len(archive.Files) < 20 {
		t.Fatalf("%d cases: %v", len(archive.Files), err)
	}
	for _, f := range archive.Files {
		name, want, _ := strings.Cut(f.Name, ":")
		t.Run(name, func(t *testing.T) {
			var cfg gatehouse.ImageConfig
			if err := json.Unmarshal(f.Data, &cfg); err != nil {
				t.Fatal(err)
			}
			found := misconfig.Image(cfg, nil)
			if got := ids(found); got != strings.TrimSpace(want) {
				t.Errorf("%q, want %q", got, want)
			}
			for _, f := range found {
				if f.Kind != gatehouse.KindMisconfig || f.Location == nil || f.Location.Origin == "" || f.Resolution == "" || f.Description == "" {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

// TestSecretsOfConfiguration: a secret in a variable or a step is a mistake of
// the image, and told with what was masked before.
func TestSecretsOfConfiguration(t *testing.T) {
	secrets := []gatehouse.Finding{
		{Kind: gatehouse.KindSecret, Location: &gatehouse.Location{Origin: "env", Name: "KEY", Excerpt: "KEY=********"}},
		{Kind: gatehouse.KindSecret, Location: &gatehouse.Location{Origin: "history", Name: "step 2", Excerpt: "********"}},
	}
	found := misconfig.Image(gatehouse.ImageConfig{}, secrets)
	if got := ids(found); got != "GHM001,GHM002,GHM003,GHM004" {
		t.Errorf("%s", got)
	}
}

// TestExcerptsShowNoLogin: the address of an ADD may hold one.
func TestExcerptsShowNoLogin(t *testing.T) {
	var cfg gatehouse.ImageConfig
	doc := `{"history": [{"created_by": "ADD https://me:hunter2@x.test/a?sig=geheim /a # buildkit"}]}`
	if err := json.Unmarshal([]byte(doc), &cfg); err != nil {
		t.Fatal(err)
	}
	for _, f := range misconfig.Image(cfg, nil) {
		if strings.Contains(f.Location.Excerpt, "hunter2") || strings.Contains(f.Location.Excerpt, "geheim") {
			t.Errorf("%q", f.Location.Excerpt)
		}
	}
}

// TestManySteps: the bounds of what one configuration may say.
func TestManySteps(t *testing.T) {
	doc := `{"history": [` + strings.Repeat(`{"created_by": "RUN sudo x"},`, 5000) + `{"created_by": "RUN true"}]}`
	var cfg gatehouse.ImageConfig
	if err := json.Unmarshal([]byte(doc), &cfg); err != nil {
		t.Fatal(err)
	}
	if n := len(misconfig.Image(cfg, nil)); n != 52 {
		t.Errorf("%d findings", n)
	}
}
