package pipeline_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
)

// TestOnePackageInImagesOfDifferentScope: the same package database in images
// that are looked up in different places. What is found for it in one of them
// must not stand for the other, whichever comes first.
func TestOnePackageInImagesOfDifferentScope(t *testing.T) {
	h := open(t, t.TempDir()).work()
	packages := file{"var/lib/rpmmanifest/container-manifest-2",
		"bash\t5.2.26-4.el10\t1\t2\tRed Hat, Inc.\t(none)\t0\tx86_64\t0\tbash-5.2.26-4.el10.src.rpm\n" +
			"oc\t4.16.0-1.el10\t1\t2\tRed Hat, Inc.\t(none)\t0\tx86_64\t0\toc-4.16.0-1.el10.src.rpm\n"}
	manifest := file{"root/buildinfo/content_manifests/oc-container-4.16.json", `{"content_sets": ["rhocp-4.16-for-rhel-10-x86_64-rpms"]}`}
	push := func(repo gatehouse.Repo, files ...file) gatehouse.Digest {
		blob, id := layer(t, files...)
		return h.push(repo, [][]byte{blob}, []gatehouse.Digest{id})
	}
	zero := push("a/zero", osRelease("rhel", "10.0"), packages)
	h.indexed(zero)
	one := push("a/one", osRelease("rhel", "10.1"), packages)
	h.indexed(one)
	openshift := push("a/openshift", osRelease("rhel", "10.0"), packages, manifest)
	h.indexed(openshift)
	h.publish(
		flaw("CVE-2026-0001", "Red Hat:enterprise_linux:10.0", "bash", "5.2.26-5.el10"),
		flaw("CVE-2026-0002", "Red Hat:enterprise_linux:10.1", "bash", "5.2.26-6.el10"),
		flaw("CVE-2026-0003", "Red Hat:openshift:4.16::el10", "oc", "4.16.1-1.el10"),
	)
	for _, test := range []struct {
		name  string
		image gatehouse.Digest
		want  []string
	}{
		{"10.0", zero, []string{"CVE-2026-0001 bash 5.2.26-4.el10"}},
		{"10.1", one, []string{"CVE-2026-0001 bash 5.2.26-4.el10", "CVE-2026-0002 bash 5.2.26-4.el10"}},
		{"OpenShift", openshift, []string{"CVE-2026-0001 bash 5.2.26-4.el10", "CVE-2026-0003 oc 4.16.0-1.el10"}},
	} {
		if d := cmp.Diff(test.want, h.vulns(test.image)); d != "" {
			t.Errorf("%s:\n%s", test.name, d)
		}
	}
}
