// Package e2e runs Gatehouse against the real parts that it will meet: a
// kube-apiserver with its etcd, and the stock cosign. `make e2e` builds those
// parts and names them in GATEHOUSE_ETCD, GATEHOUSE_KUBE_APISERVER and
// GATEHOUSE_COSIGN; without them the tests here are skipped by name.
//
// [StartKube] is the way in: it starts a control plane of its own on loopback,
// with its own CA and token, and stops it with the test.
package e2e
