// Command trivydb-fixture writes a database of Trivy's for tests, with the code
// that Trivy's own databases are written with:
//
//	trivydb-fixture SCRIPT.json FOLDER
//
// The script says what is put in, in the words of that code's types. The folder
// gets trivy.db, metadata.json, and both in db.tar.gz, which is what the layer of
// the OCI artifact holds.
package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/aquasecurity/trivy-db/pkg/db"
	"github.com/aquasecurity/trivy-db/pkg/metadata"
	"github.com/aquasecurity/trivy-db/pkg/types"
	redhatoval "github.com/aquasecurity/trivy-db/pkg/vulnsrc/redhat-oval"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/vulnerability"
	bolt "go.etcd.io/bbolt"
)

type script struct {
	Metadata   metadata.Metadata
	Products   []string // CPEs of Red Hat, by number
	Sources    map[string]types.DataSource
	Advisories []advisory
	Details    []detail
	Many       []many
}

// advisory has one of the three forms in which sources write.
type advisory struct {
	Bucket, Package, ID string
	Advisory            *types.Advisory
	Advisories          *types.Advisories    // by architecture
	RedHat              *redhatoval.Advisory // by product
}

type detail struct {
	ID     string
	Source types.SourceID
	Detail types.VulnerabilityDetail
}

// many is for measurements: every package of a bucket has every flaw.
type many struct {
	Bucket          string
	Packages, Flaws int
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: trivydb-fixture SCRIPT.json FOLDER")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "trivydb-fixture:", err)
		os.Exit(1)
	}
}

func run(name, folder string) (err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var s script
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if err := db.Init(folder); err != nil {
		return err
	}
	err = errors.Join(write(s), db.Close())
	if err != nil {
		return err
	}
	if err := metadata.NewClient(folder).Update(s.Metadata); err != nil {
		return err
	}
	return pack(folder)
}

func write(s script) error {
	dbc := db.Config{}
	err := dbc.BatchUpdate(func(tx *bolt.Tx) error {
		for bucket, source := range s.Sources {
			if err := dbc.PutDataSource(tx, bucket, source); err != nil {
				return err
			}
		}
		for i, cpe := range s.Products {
			if err := errors.Join(dbc.PutRedHatCPEs(tx, i, cpe), dbc.PutRedHatRepositories(tx, cpe, []int{i})); err != nil {
				return err
			}
		}
		for _, a := range s.Advisories {
			var value any
			switch {
			case a.RedHat != nil:
				value = *a.RedHat
			case a.Advisories != nil:
				value = *a.Advisories
			case a.Advisory != nil:
				value = a.Advisory
			}
			if err := put(tx, a.Bucket, a.Package, a.ID, value); err != nil {
				return err
			}
		}
		for _, d := range s.Details {
			if err := errors.Join(dbc.PutVulnerabilityDetail(tx, d.ID, d.Source, d.Detail), dbc.PutVulnerabilityID(tx, d.ID)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, m := range s.Many {
		if err := dbc.BatchUpdate(m.put); err != nil {
			return err
		}
	}
	return finish(dbc)
}

func put(tx *bolt.Tx, bucket, pkg, id string, value any) error {
	dbc := db.Config{}
	return errors.Join(dbc.PutAdvisoryDetail(tx, id, pkg, []string{bucket}, value), dbc.PutVulnerabilityID(tx, id))
}

func (m many) put(tx *bolt.Tx) error {
	for f := range m.Flaws {
		id := fmt.Sprintf("CVE-%d-%d", 2005+f%20, 10000+f)
		for p := range m.Packages {
			a := &types.Advisory{FixedVersion: fmt.Sprintf("%d.%d-%d", f%30, p%20, f%7)}
			if err := put(tx, m.Bucket, fmt.Sprintf("package-%d", p), id, a); err != nil {
				return err
			}
		}
		d := types.VulnerabilityDetail{
			Title: "a flaw", Description: fmt.Sprintf("%s lets attackers do what they should not.", id), SeverityV3: types.Severity(f % 5),
			CvssScoreV3: 9.8, CvssVectorV3: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", References: []string{"https://example.test/" + id},
		}
		if err := (db.Config{}).PutVulnerabilityDetail(tx, id, vulnerability.NVD, d); err != nil {
			return err
		}
	}
	return nil
}

// finish is what vulndb.TrivyDB.Build does after its sources have written:
// advisories and details go to their buckets, and what they were kept in until
// then goes away.
func finish(dbc db.Config) error {
	client := vulnerability.New(dbc)
	err := dbc.ForEachVulnerabilityID(func(tx *bolt.Tx, id string) error {
		details := client.GetDetails(id)
		if client.IsRejected(details) {
			return nil
		}
		if err := dbc.SaveAdvisoryDetails(tx, id); err != nil {
			return err
		}
		if len(details) == 0 {
			return nil
		}
		return dbc.PutVulnerability(tx, id, client.Normalize(id, details))
	})
	return errors.Join(err, dbc.DeleteVulnerabilityIDBucket(), dbc.DeleteVulnerabilityDetailBucket(), dbc.DeleteAdvisoryDetailBucket())
}

func pack(folder string) (err error) {
	f, err := os.Create(filepath.Join(folder, "db.tar.gz"))
	if err != nil {
		return err
	}
	z := gzip.NewWriter(f)
	t := tar.NewWriter(z)
	defer func() { err = errors.Join(err, t.Close(), z.Close(), f.Close()) }()
	for _, name := range []string{"trivy.db", "metadata.json"} {
		b, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return err
		}
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(b))}); err != nil {
			return err
		}
		if _, err := t.Write(b); err != nil {
			return err
		}
	}
	return nil
}
