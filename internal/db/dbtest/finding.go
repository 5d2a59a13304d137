package dbtest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

var findingTests = []test{
	{"what a layer shows is stored once, and the exceptions of an image", layerFindings},
	{"an image that is analysed again has what it has now", findingsReplaced},
	{"findings that went are remembered, for as long as an image had them", history},
	{"images are found by what is wrong with them, page by page", affected},
	{"the base of an image is the stored one with most of its lower layers", bases},
	{"what is known of what is gone is forgotten, and nothing else", forget},
	{"images of another indexer are indexed again, those in use first", reindex},
}

// secret is a finding of a file.
func secret(id, path string, severity gatehouse.Severity) gatehouse.Finding {
	return gatehouse.Finding{
		ID: id, Kind: gatehouse.KindSecret, Severity: severity, Package: gatehouse.Package{Path: path},
		Location: &gatehouse.Location{Origin: "file", StartLine: 1, Excerpt: "***"},
	}
}

// at is a finding as an image with this layer has it.
func at(f gatehouse.Finding, layer gatehouse.Digest, deleted bool) gatehouse.Finding {
	f.Package.Layer = layer
	l := *f.Location
	l.Deleted = deleted
	f.Location = &l
	return f
}

// layer stores a layer with findings, files and packages.
func (s *suite) layer(name string, inv gatehouse.LayerInventory) int64 {
	s.Helper()
	inv.DiffID, inv.Blob, inv.Complete = digest(name), digest("blob of "+name), true
	if inv.Indexer == "" {
		inv.Indexer = "x"
	}
	var id int64
	s.write(func(tx *db.Tx) (err error) {
		id, err = tx.SaveLayer(s.Context(), inv)
		return err
	})
	return id
}

// image stores an image made of layers, named as they are, and matches what is new
// in it: every package is said to have vulns.
func (s *suite) image(name string, layers []string, ids []int64, vulns ...string) db.Image {
	s.Helper()
	img := db.Image{Digest: digest(name), Indexer: "x", Config: []byte("{}"), Complete: true}
	var diffIDs []gatehouse.Digest
	for _, l := range layers {
		diffIDs = append(diffIDs, digest(l))
		img.Layers = append(img.Layers, gatehouse.LayerOrigin{DiffID: digest(l)})
	}
	if chain := db.Chain(diffIDs); len(chain) > 0 {
		img.Chain = chain[len(chain)-1]
	}
	s.write(func(tx *db.Tx) error {
		fresh, err := tx.UnmatchedPackages(s.Context(), ids, "")
		s.must(err)
		img.ID, err = tx.SaveImage(s.Context(), img, ids, nil)
		s.must(err)
		for id := range fresh {
			s.must(tx.NamePackage(s.Context(), id, "", db.Name{Space: "npm", Name: fresh[id].Name}))
			_, err := tx.ReplaceFindings(s.Context(), found(id, vulns...))
			s.must(err)
		}
		s.must(tx.CountImage(s.Context(), img.ID, "", 1))
		inventories, rows, err := tx.LayersOfImageByID(s.Context(), img.ID)
		s.must(err)
		for i, inv := range inventories {
			s.must(tx.MatchMalware(s.Context(), rows[i], inv.Files))
		}
		s.must(tx.CountMalware(s.Context(), img.ID))
		img, _, err = tx.ImageByDigest(s.Context(), img.Digest)
		return err
	})
	return img
}

func found(pkg int64, vulns ...string) db.PackageFindings {
	out := db.PackageFindings{PackageID: pkg, Package: "p 1"}
	for _, v := range vulns {
		out.Findings = append(out.Findings, gatehouse.Finding{ID: v, Kind: gatehouse.KindVulnerability, Severity: gatehouse.SeverityHigh})
	}
	return out
}

func npmSet(names ...string) []gatehouse.PackageSet {
	var out []gatehouse.PackageSet
	for _, n := range names {
		out = append(out, gatehouse.PackageSet{Path: n + "/package.json", Extractor: "npm", Packages: []gatehouse.Package{{Type: "npm", Name: n, Version: "1"}}})
	}
	return out
}

func lines(findings []gatehouse.Finding) string {
	var out []string
	for _, f := range findings {
		deleted := ""
		if f.Location != nil && f.Location.Deleted {
			deleted = " deleted"
		}
		out = append(out, fmt.Sprintf("%s %s %s%s", f.Kind, f.ID, f.Package.Path, deleted))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func (s *suite) listed(img db.Image) string {
	s.Helper()
	var list []gatehouse.Finding
	s.read(func(tx *db.Tx) (err error) {
		list, err = tx.FindingsOfImage(s.Context(), img)
		return err
	})
	return lines(list)
}

func layerFindings(s *suite) {
	one, two := secret("aws-key", "a", gatehouse.SeverityCritical), secret("aws-key", "b", gatehouse.SeverityHigh)
	mode := gatehouse.Finding{ID: "GHM004", Kind: gatehouse.KindMisconfig, Severity: gatehouse.SeverityLow, Package: gatehouse.Package{Path: "bin/su"}, Location: &gatehouse.Location{Origin: "file"}}
	base := s.layer("base", gatehouse.LayerInventory{Findings: []gatehouse.Finding{one, two, mode}})
	top := s.layer("top", gatehouse.LayerInventory{Findings: []gatehouse.Finding{one}})
	img := s.image("img", []string{"base", "top"}, []int64{base, top})
	root := gatehouse.Finding{ID: "GHM001", Kind: gatehouse.KindMisconfig, Severity: gatehouse.SeverityMedium, Location: &gatehouse.Location{Origin: "config"}}
	shown := []gatehouse.Finding{at(one, digest("base"), true), at(two, digest("base"), false), at(one, digest("top"), false), root} // mode is hidden
	layers := []db.LayerFindings{{DiffID: digest("base"), Findings: []gatehouse.Finding{one, two, mode}}, {DiffID: digest("top"), Findings: []gatehouse.Finding{one}}}
	counts := db.KindCounts{}
	for _, f := range shown {
		counts.Add(f)
	}
	s.write(func(tx *db.Tx) error { return tx.SaveImageFindings(s.Context(), img.ID, layers, shown, counts) })
	want(s, "findings", "misconfig GHM001 \nsecret aws-key a\nsecret aws-key a deleted\nsecret aws-key b", s.listed(img))
	s.read(func(tx *db.Tx) error {
		list, err := tx.FindingsOfImage(s.Context(), img)
		s.must(err)
		for _, f := range list {
			if f.Location.Origin == "file" && f.Package.Layer == "" || !f.FirstSeen.Equal(img.FirstIndexedAt) {
				s.Errorf("%s at %s is of layer %q, first seen %s", f.ID, f.Package.Path, f.Package.Layer, f.FirstSeen)
			}
		}
		kinds, err := tx.KindCounts(s.Context(), img)
		s.must(err)
		want(s, "secrets by severity", [6]int{4: 1, 5: 2}, kinds[gatehouse.KindSecret])
		want(s, "misconfiguration by severity", [6]int{3: 1}, kinds[gatehouse.KindMisconfig])
		return nil
	})
	// The same layer in another image, where nothing is hidden: no row of its own.
	other := s.image("other", []string{"base"}, []int64{base})
	want(s, "findings of the base alone", "misconfig GHM004 bin/su\nsecret aws-key a\nsecret aws-key b", s.listed(other))
}

func findingsReplaced(s *suite) {
	one := secret("aws-key", "a", gatehouse.SeverityCritical)
	base := s.layer("base", gatehouse.LayerInventory{Findings: []gatehouse.Finding{one}})
	img := s.image("img", []string{"base"}, []int64{base})
	layers := []db.LayerFindings{{DiffID: digest("base"), Findings: []gatehouse.Finding{one}}}
	s.write(func(tx *db.Tx) error { return tx.SaveImageFindings(s.Context(), img.ID, layers, nil, nil) })
	want(s, "hidden", "", s.listed(img))
	s.write(func(tx *db.Tx) error {
		return tx.SaveImageFindings(s.Context(), img.ID, layers, []gatehouse.Finding{at(one, digest("base"), false)}, db.KindCounts{gatehouse.KindSecret: {5: 1}})
	})
	want(s, "shown", "secret aws-key a", s.listed(img))
	again := s.image("img", []string{"base"}, []int64{base})
	if !again.FirstIndexedAt.Equal(img.FirstIndexedAt) || again.ID != img.ID {
		s.Errorf("indexed again: first at %s, was %s", again.FirstIndexedAt, img.FirstIndexedAt)
	}
	s.write(func(tx *db.Tx) error { return tx.DropImageFindings(s.Context(), img.ID) })
	s.read(func(tx *db.Tx) error {
		kinds, err := tx.KindCounts(s.Context(), img)
		want(s, "sums after they were dropped", db.KindCounts{gatehouse.KindVulnerability: {}}, kinds)
		return err
	})
}

func history(s *suite) {
	base := s.layer("base", gatehouse.LayerInventory{Sets: npmSet("a", "b")})
	old := s.image("old", []string{"base"}, []int64{base}, "CVE-1")
	var a int64
	s.read(func(tx *db.Tx) error {
		named, err := tx.PackagesNamed(s.Context(), db.Name{Space: "npm", Name: "a"})
		a = named[0].ID
		return err
	})
	replace := func(vulns ...string) {
		s.Helper()
		s.write(func(tx *db.Tx) error {
			changes, err := tx.ReplaceFindings(s.Context(), found(a, vulns...))
			s.must(err)
			for _, c := range changes {
				if c.Package == "" || c.Severity != gatehouse.SeverityHigh {
					s.Errorf("a change says too little: %+v", c)
				}
			}
			_, err = tx.Recount(s.Context(), 2)
			return err
		})
	}
	gone := func(img db.Image) (out []string) {
		s.Helper()
		s.read(func(tx *db.Tx) error {
			list, err := tx.GoneFromImage(s.Context(), img)
			s.must(err)
			for _, g := range list {
				out = append(out, fmt.Sprintf("%s %s %s %s", g.Vuln, g.Severity, g.Package.Name, g.Package.Path))
				if g.From.Before(img.FirstIndexedAt) || !g.To.After(g.From) {
					s.Errorf("%s was there from %s to %s, the image from %s", g.Vuln, g.From, g.To, img.FirstIndexedAt)
				}
			}
			return nil
		})
		slices.Sort(out)
		return out
	}
	want(s, "before anything went", nil, gone(old))
	replace("CVE-2")
	want(s, "one went", []string{"CVE-1 HIGH a a/package.json"}, gone(old))
	// An image that comes later never had it.
	young := s.image("young", []string{"base"}, []int64{base})
	want(s, "of a younger image", nil, gone(young))
	replace("CVE-1")
	replace()
	want(s, "it came back, and went again", []string{"CVE-1 HIGH a a/package.json", "CVE-1 HIGH a a/package.json", "CVE-2 HIGH a a/package.json"}, gone(old))
	want(s, "of the younger image", []string{"CVE-1 HIGH a a/package.json", "CVE-2 HIGH a a/package.json"}, gone(young))
	want(s, "what is left", "vulnerability CVE-1 b/package.json", s.listed(old))
	s.read(func(tx *db.Tx) error {
		for _, img := range []db.Image{old, young} {
			list, err := tx.FindingsOfImage(s.Context(), img)
			s.must(err)
			if len(list) != 1 || list[0].FirstSeen.Before(img.FirstIndexedAt) {
				s.Errorf("%+v", list)
			}
		}
		return nil
	})
}

func affected(s *suite) {
	bad := s.layer("bad", gatehouse.LayerInventory{Sets: npmSet("a")})
	good := s.layer("good", gatehouse.LayerInventory{})
	var all []gatehouse.Digest
	for i := range 7 {
		name := fmt.Sprint("img", i)
		s.image(name, []string{"bad", "good"}, []int64{bad, good}, "CVE-1")
		all = append(all, digest(name))
	}
	s.image("clean", []string{"good"}, []int64{good})
	hidden := s.image("hidden", []string{"bad"}, []int64{bad})
	s.write(func(tx *db.Tx) error {
		_, err := tx.SaveImage(s.Context(), hidden, []int64{bad}, []db.HiddenSet{{Layer: 0, Set: 0}})
		return err
	})
	s.read(func(tx *db.Tx) error {
		named, err := tx.PackagesNamed(s.Context(), db.Name{Space: "npm", Name: "a"})
		s.must(err)
		for what, list := range map[string]func(after int64, n int) ([]db.Affected, error){
			"by vulnerability": func(after int64, n int) ([]db.Affected, error) {
				return tx.ImagesWithVulnerability(s.Context(), []string{"GHSA-1", "CVE-1"}, after, n)
			},
			"by package": func(after int64, n int) ([]db.Affected, error) {
				return tx.ImagesWithPackage(s.Context(), named[0].ID, "", after, n)
			},
		} {
			var got []gatehouse.Digest
			for after, pages := int64(0), 0; ; pages++ {
				page, err := list(after, 3)
				s.must(err)
				for _, a := range page {
					got, after = append(got, a.Digest), a.ID
				}
				if len(page) < 3 {
					want(s, "pages "+what, 2, pages)
					break
				}
			}
			want(s, what, all, got)
		}
		none, err := tx.ImagesWithVulnerability(s.Context(), []string{"CVE-2"}, 0, 10)
		s.must(err)
		want(s, "images with a flaw that none has", 0, len(none))
		page, err := tx.ImagesWithLayer(s.Context(), digest("good"), 0, 100)
		s.must(err)
		want(s, "images with a layer", 8, len(page))
		return nil
	})
}

func bases(s *suite) {
	var ids []int64
	names := []string{"l1", "l2", "l3", "l4"}
	for _, n := range names {
		ids = append(ids, s.layer(n, gatehouse.LayerInventory{}))
	}
	s.image("one", names[:1], ids[:1])
	s.image("two", names[:2], ids[:2])
	s.image("twin of two", names[:2], ids[:2])
	s.image("other", []string{"l2", "l1"}, []int64{ids[1], ids[0]})
	four := s.image("four", names, ids)
	base := func(layers ...string) string {
		var diffIDs []gatehouse.Digest
		for _, l := range layers {
			if l != "" {
				l = string(digest(l))
			}
			diffIDs = append(diffIDs, gatehouse.Digest(l))
		}
		out := ""
		s.read(func(tx *db.Tx) error {
			n, images, err := tx.Bases(s.Context(), diffIDs, 10)
			out = fmt.Sprint(n, " layers, ", len(images), " images")
			return err
		})
		return out
	}
	want(s, "the base of four", "2 layers, 2 images", base("l1", "l2", "l3", "l4"))
	want(s, "of two: its twin is none", "1 layers, 1 images", base("l1", "l2"))
	want(s, "of one", "0 layers, 0 images", base("l1"))
	want(s, "of one that begins otherwise", "0 layers, 0 images", base("l3", "l1", "l2"))
	want(s, "of one with an unreadable layer", "2 layers, 2 images", base("l1", "l2", "", "l4"))
	want(s, "of nothing", "0 layers, 0 images", base())
	for _, at := range []struct{ repo, image string }{{"base/a", "one"}, {"apps/b", "four"}, {"base/c", "two"}, {"base/d", "two"}, {"base/e", "other"}} {
		s.manifest(gatehouse.Repo(at.repo), db.NewManifest{Manifest: gatehouse.Manifest{Descriptor: gatehouse.Descriptor{Digest: digest(at.image)}}})
	}
	s.read(func(tx *db.Tx) error {
		var four []gatehouse.Digest
		for _, n := range names {
			four = append(four, digest(n))
		}
		list, err := tx.Beneath(s.Context(), four, 4)
		s.must(err)
		got := ""
		for _, p := range list {
			got += string(p.Repo) + " "
		}
		want(s, "where what four is built of lies", "apps/b base/a base/c base/d ", got)
		list, err = tx.Beneath(s.Context(), nil, 4)
		s.must(err)
		want(s, "what nothing is built of", 0, len(list))
		_, err = tx.Beneath(s.Context(), four, 3)
		want(s, "more than are asked for", gatehouse.CodeTooLarge, gatehouse.CodeOf(err))
		return nil
	})
	if len(four.Layers) != 4 || four.Layers[3].DiffID != digest("l4") {
		s.Errorf("layers %+v", four.Layers)
	}
}

func forget(s *suite) {
	secrets := []gatehouse.Finding{secret("aws-key", "a", gatehouse.SeverityHigh)}
	kept := s.layer("kept", gatehouse.LayerInventory{Sets: npmSet("a"), Files: files("f"), Findings: secrets})
	lone := s.layer("lone", gatehouse.LayerInventory{Sets: npmSet("a", "b"), Files: files("f", "g", "g"), Findings: secrets})
	s.manifest("repo", db.NewManifest{Manifest: gatehouse.Manifest{Descriptor: gatehouse.Descriptor{Digest: digest("here")}}})
	s.list("bad", "f")
	here := s.image("here", []string{"kept"}, []int64{kept}, "CVE-1")
	gone := s.image("gone", []string{"kept", "lone"}, []int64{kept, lone}, "CVE-1")
	s.write(func(tx *db.Tx) error {
		s.must(tx.SaveImageFindings(s.Context(), gone.ID, []db.LayerFindings{{}, {DiffID: digest("lone"), Findings: secrets}}, secrets, db.KindCounts{gatehouse.KindSecret: {1}}))
		_, err := tx.ReplaceMalware(s.Context(), lone, "v", "", nil)
		return err
	})
	run := func(before time.Duration) string {
		var images, layers int
		s.write(func(tx *db.Tx) (err error) {
			images, err = tx.ForgetImages(s.Context(), tx.Now().Add(before))
			s.must(err)
			layers, err = tx.ForgetLayers(s.Context(), tx.Now().Add(before))
			return err
		})
		return fmt.Sprint(images, " images, ", layers, " layers")
	}
	want(s, "what is young", "0 images, 0 layers", run(-time.Hour))
	want(s, "what is old", "1 images, 1 layers", run(time.Hour))
	want(s, "once more", "0 images, 0 layers", run(time.Hour))
	want(s, "the other image", "secret aws-key a\nvulnerability CVE-1 a/package.json", s.listed(here))
	want(s, "its malware", "list:bad Bad.f", s.malwareOf(here))
	// The same layer again is indexed and judged anew.
	again := s.layer("lone", gatehouse.LayerInventory{Sets: npmSet("a", "b"), Files: files("f"), Findings: secrets})
	img := s.image("back", []string{"lone"}, []int64{again})
	want(s, "what came back", "secret aws-key a\nvulnerability CVE-1 a/package.json\nvulnerability CVE-1 b/package.json", s.listed(img))
	want(s, "its malware", "list:bad Bad.f", s.malwareOf(img))
}

func reindex(s *suite) {
	l := s.layer("l", gatehouse.LayerInventory{})
	for i := range 5 {
		name := fmt.Sprint("img", i)
		s.manifest(gatehouse.Repo(fmt.Sprint("repo", i)), db.NewManifest{Manifest: gatehouse.Manifest{Descriptor: gatehouse.Descriptor{Digest: digest(name)}}})
		s.image(name, []string{"l"}, []int64{l})
	}
	s.image("gone", []string{"l"}, []int64{l}) // no repository holds it
	s.write(func(tx *db.Tx) error {
		next, err := tx.QueueReindex(s.Context(), "x", 0)
		s.must(err)
		if next == 0 {
			s.Error("no page")
		}
		n, err := tx.ReindexLeft(s.Context())
		s.must(err)
		want(s, "to be indexed again by the same indexer", int64(0), n)
		return nil
	})
	s.write(func(tx *db.Tx) error { return tx.NoteUse(s.Context(), map[gatehouse.Digest]bool{digest("img2"): true}) })
	s.write(func(tx *db.Tx) error {
		pages := 0
		for after := int64(0); ; pages++ {
			next, err := tx.QueueReindex(s.Context(), "y", after)
			s.must(err)
			if next == 0 {
				break
			}
			after = next
		}
		want(s, "pages", 1, pages)
		n, err := tx.ReindexLeft(s.Context())
		s.must(err)
		want(s, "to be indexed again", int64(5), n)
		return nil
	})
	var got []string
	s.write(func(tx *db.Tx) error {
		for range 4 {
			places, err := tx.NextReindex(s.Context(), 2)
			s.must(err)
			for _, p := range places {
				got = append(got, string(p.Repo))
			}
		}
		return nil
	})
	want(s, "the one in use comes first", "repo2", got[0])
	slices.Sort(got)
	want(s, "each once", []string{"repo0", "repo1", "repo2", "repo3", "repo4"}, got)
	s.write(func(tx *db.Tx) error { return tx.PruneUse(s.Context(), tx.Now().Add(time.Hour)) })
}
