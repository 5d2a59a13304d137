package sbom_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sbom"
)

// many is an inventory of n packages.
func many(n int) gatehouse.Inventory {
	inv := gatehouse.Inventory{Subject: image, Distro: gatehouse.Distro{ID: "debian", VersionID: "12"}, Complete: true}
	for i := range n {
		inv.Packages = append(inv.Packages, gatehouse.Package{
			Type: "deb", Name: fmt.Sprintf("lib%05d", i), Version: "1.2.3-4+b1", Source: "lib", Arch: "amd64", Licenses: []string{"GPL-2.0-only"},
			Path: "var/lib/dpkg/status", Layer: layer,
		})
	}
	return inv
}

func BenchmarkWrite(b *testing.B) {
	for _, f := range []sbom.Format{sbom.CycloneDX, sbom.SPDX} {
		inv := many(1000)
		b.Run(string(f), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := sbom.Write(io.Discard, f, inv, sbom.Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	for _, f := range []sbom.Format{sbom.CycloneDX, sbom.SPDX} {
		var doc bytes.Buffer
		if err := sbom.Write(&doc, f, many(1000), sbom.Options{}); err != nil {
			b.Fatal(err)
		}
		b.Run(string(f), func(b *testing.B) {
			b.SetBytes(int64(doc.Len()))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := sbom.Read(context.Background(), bytes.NewReader(doc.Bytes()), sbom.Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
