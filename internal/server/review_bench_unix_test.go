//go:build unix

package server_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkReview is what one review of a Pod of a signed image costs that was judged
// before: over HTTP/2 and TLS, with what is written down of it. The client is in the
// same process, and its part counts, too.
func BenchmarkReview(b *testing.B) {
	r, digest := signedPod(b, nil)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: r.https.Transport.(*http.Transport).TLSClientConfig, ForceAttemptHTTP2: true,
	}}
	defer client.CloseIdleConnections()
	ask := func(n int) {
		res, err := client.Post(r.webhook+"/validate?timeout=10s", "application/json", bytes.NewReader(podReview(n, "registry.example/a/b@"+digest)))
		if err != nil {
			b.Fatal(err)
		}
		defer res.Body.Close()
		if answer, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(answer), `"allowed":true`) {
			b.Fatalf("%s, %v", answer, err)
		}
	}
	ask(0)
	b.ReportAllocs()
	before := cpu(b)
	n := 1
	for ; b.Loop(); n++ {
		ask(n)
	}
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(n-1), "cpu-µs/op")
}

// cpu is the CPU time of this process.
func cpu(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// podReview is a review of a Pod such as a Deployment makes.
func podReview(n int, image string) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"bench-%d",
		"kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},"requestKind":{"group":"","version":"v1","kind":"Pod"},
		"namespace":"default","operation":"CREATE","userInfo":{"username":"system:serviceaccount:kube-system:replicaset-controller","groups":["system:serviceaccounts","system:authenticated"]},
		"object":{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"app-","namespace":"default","labels":{"app":"app","pod-template-hash":"abc"},
		"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"app","uid":"1","controller":true,"blockOwnerDeletion":true}]},
		"spec":{"containers":[{"name":"app","image":%q,"env":[{"name":"A","value":"b"}],"ports":[{"containerPort":8080,"protocol":"TCP"}],
		"resources":{"requests":{"cpu":"100m","memory":"64Mi"}},"volumeMounts":[{"name":"token","mountPath":"/var/run/secrets/kubernetes.io/serviceaccount","readOnly":true}],
		"livenessProbe":{"httpGet":{"path":"/","port":8080},"periodSeconds":10},"imagePullPolicy":"IfNotPresent"}],"restartPolicy":"Always","serviceAccountName":"default",
		"volumes":[{"name":"token","projected":{"sources":[{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}}]}}],
		"tolerations":[{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}]}},
		"oldObject":null,"dryRun":false,"options":{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1"}}}`, n, image)
}
