package dbtest

import (
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

var clusterTests = []test{{"cluster documents", clusterDocuments}}

// clusterDocuments are replaced as a whole, and each change of them is a change of the
// policies.
func clusterDocuments(s *suite) {
	set := func(docs map[string]string) (changed bool) {
		s.write(func(tx *db.Tx) (err error) {
			changed, err = tx.SetClusterDocuments(s.Context(), actor, docs)
			return err
		})
		return changed
	}
	get := func() (docs []db.ClusterDocument, read bool, version int64) {
		s.read(func(tx *db.Tx) (err error) {
			if version, err = tx.PolicyVersion(s.Context()); err != nil {
				return err
			}
			list, at, err := tx.ClusterDocuments(s.Context())
			docs, read = list, !at.IsZero()
			return err
		})
		return docs, read, version
	}
	if _, read, _ := get(); read {
		s.Error("nothing was read yet, and it says so")
	}
	want(s, "the first time, of nothing", true, set(nil))
	_, read, first := get()
	want(s, "it was read", true, read)
	want(s, "nothing again", false, set(map[string]string{}))
	want(s, "two", true, set(map[string]string{"cluster/A/a": "1", "cluster/A/b": "1"}))
	want(s, "the same two", false, set(map[string]string{"cluster/A/a": "1", "cluster/A/b": "1"}))
	docs, _, second := get()
	want(s, "what is there", []db.ClusterDocument{{Path: "cluster/A/a", Source: "1"}, {Path: "cluster/A/b", Source: "1"}}, docs)
	want(s, "one changes, one goes", true, set(map[string]string{"cluster/A/b": "2"}))
	docs, _, third := get()
	want(s, "what is left", []db.ClusterDocument{{Path: "cluster/A/b", Source: "2"}}, docs)
	if first == 0 || second <= first || third <= second {
		s.Errorf("versions %d, %d, %d do not grow", first, second, third)
	}
}
