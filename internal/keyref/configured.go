package keyref

import (
	"context"

	"github.com/gatehouse-dev/gatehouse"
)

// InCluster is what stands for the service account of the pod that we run in.
const InCluster = "in-cluster"

// Configured reads the cluster that a setting names: a kubeconfig file, of which the
// current context counts, or [InCluster]; empty: the one that kubectl would take, or
// that of the pod. Tokens in files are read now: whoever
// goes on for long asks again. o.Local must be set, for such a file may name programs
// that log in. Errors: CodeInvalid.
func Configured(ctx context.Context, path string, o Options) (*Cluster, error) {
	return configured(ctx, path, o, podFiles)
}

func configured(ctx context.Context, path string, o Options, pod string) (*Cluster, error) {
	if !o.Local {
		return nil, gatehouse.Errorf(gatehouse.CodeDenied, "a kubeconfig may name programs, which are not started here")
	}
	if path == InCluster {
		c, err := podCluster(o.getenv, pod)
		if err == nil && c == nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "this is no pod of a Kubernetes cluster, or it has no service account").
				WithHint("name a kubeconfig file instead of %s", InCluster)
		}
		return c, err
	}
	if path == "" {
		return findCluster(ctx, o, pod)
	}
	var all kubeconfig
	if err := all.add(path); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read the kubeconfig: %w", err)
	}
	return all.cluster(ctx, o)
}
