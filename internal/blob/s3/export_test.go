package s3

import "github.com/gatehouse-dev/gatehouse/internal/blob"

// Die ends a sitting as the death of its process would: its connection breaks,
// and nothing is tidied up.
func Die(w blob.Writer) { w.(*writer).end() }
