// Package kube speaks to one Kubernetes cluster: objects go in and out as they are
// in JSON, and watches keep copies of collections. The connection is handed in; the
// package opens none, keeps no credentials, and knows nothing of policies.
package kube

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	// requestsPerSecond and requestsBurst bound what we ask of the API server; watches
	// are one request each.
	requestsPerSecond = 50
	requestsBurst     = 100
	// callTimeout bounds one request that is no watch.
	callTimeout = 15 * time.Second
)

// Resource names a collection: {apps, v1, deployments}.
type Resource = schema.GroupVersionResource

// Object is an object as the API has it.
type Object = unstructured.Unstructured

// Client speaks to one cluster. It is safe for concurrent use.
type Client struct {
	api dynamic.Interface
	log *slog.Logger
	url string
	o   Options // its transport is for discovery
}

// Options are what a Client stands on.
type Options struct {
	URL string // https://HOST[:PORT][/PATH]
	// Transport opens connections and adds the credentials.
	Transport http.RoundTripper
	UserAgent string
	Log       *slog.Logger
}

// New makes a Client. It opens nothing. Errors: CodeInvalid.
func New(o Options) (*Client, error) {
	if o.Transport == nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "a Kubernetes client needs a transport")
	}
	api, err := dynamic.NewForConfig(&rest.Config{
		Host: o.URL, Transport: o.Transport, UserAgent: o.UserAgent,
		QPS: requestsPerSecond, Burst: requestsBurst,
		// The library's own lines in the log are for those who debug it.
		WarningHandlerWithContext: rest.NoWarnings{},
	})
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the cluster's address %q cannot be used: %w", o.URL, err)
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Client{api: api, log: log, url: o.URL, o: o}, nil
}

// Apart is another client of the same cluster, whose requests are counted apart: however
// many there are, those of c do not wait for them. Errors: never for what [New] made.
func (c *Client) Apart() (*Client, error) { return New(c.o) }

// LogTo sends what the Kubernetes libraries of this process log to log, at level
// debug: what matters of it comes back as errors. They have one log for the whole
// process; the first call counts. Call it before a Client is used.
func LogTo(log *slog.Logger) {
	logOnce.Do(func() { klog.SetSlogLogger(slog.New(quiet{log.Handler()})) })
}

var logOnce sync.Once

// quiet lowers everything to debug.
type quiet struct{ slog.Handler }

// Enabled implements slog.Handler.
func (q quiet) Enabled(ctx context.Context, _ slog.Level) bool {
	return q.Handler.Enabled(ctx, slog.LevelDebug)
}

// Handle implements slog.Handler.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return q.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(a)} }

// WithGroup implements slog.Handler.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }

// URL is the address of the cluster, for messages.
func (c *Client) URL() string { return c.url }

func (c *Client) collection(r Resource, namespace string) dynamic.ResourceInterface {
	if namespace == "" {
		return c.api.Resource(r)
	}
	return c.api.Resource(r).Namespace(namespace)
}

// Get reads one object; namespace is empty for what lies in none. Errors:
// CodeNotFound and those of the API server.
func (c *Client) Get(ctx context.Context, r Resource, namespace, name string) (*Object, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	o, err := c.collection(r, namespace).Get(ctx, name, metav1.GetOptions{})
	return o, c.failed("get", r, namespace, name, err)
}

// List reads the objects of all namespaces that labels select, a few at once, and
// shows each to see, which must not keep all of it. Errors: those of the API server.
func (c *Client) List(ctx context.Context, r Resource, labels string, see func(*Object)) error {
	const few = 20
	for next := ""; ; {
		page, err := c.listPage(ctx, r, metav1.ListOptions{LabelSelector: labels, Limit: few, Continue: next})
		if err != nil {
			return c.failed("list", r, "", "", err)
		}
		for i := range page.Items {
			see(&page.Items[i])
		}
		if next = page.GetContinue(); next == "" {
			return nil
		}
	}
}

func (c *Client) listPage(ctx context.Context, r Resource, o metav1.ListOptions) (*unstructured.UnstructuredList, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.collection(r, "").List(ctx, o)
}

// Create adds an object. CodeConflict: it is there already.
func (c *Client) Create(ctx context.Context, r Resource, o *Object) (*Object, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := c.collection(r, o.GetNamespace()).Create(ctx, o, metav1.CreateOptions{FieldManager: Manager})
	return out, c.failed("create", r, o.GetNamespace(), o.GetName(), err)
}

// Update replaces an object as it was read. CodeConflict: somebody changed it since.
func (c *Client) Update(ctx context.Context, r Resource, o *Object) (*Object, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := c.collection(r, o.GetNamespace()).Update(ctx, o, metav1.UpdateOptions{FieldManager: Manager})
	return out, c.failed("update", r, o.GetNamespace(), o.GetName(), err)
}

// Manager is our name as the owner of fields.
const Manager = "gatehouse"

// Apply makes the fields of o so, whoever set them before, and leaves others alone
// (server-side apply). What is so already costs no change.
func (c *Client) Apply(ctx context.Context, r Resource, o *Object) (*Object, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := c.collection(r, o.GetNamespace()).Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: Manager, Force: true})
	return out, c.failed("apply", r, o.GetNamespace(), o.GetName(), err)
}

// MergeStatus lays status over that of an object (JSON merge patch).
func (c *Client) MergeStatus(ctx context.Context, r Resource, namespace, name string, status any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	_, err = c.collection(r, namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: Manager}, "status")
	return c.failed("change the status of", r, namespace, name, err)
}

// Delete removes an object. CodeNotFound: there is none.
func (c *Client) Delete(ctx context.Context, r Resource, namespace, name string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.failed("delete", r, namespace, name, c.collection(r, namespace).Delete(ctx, name, metav1.DeleteOptions{}))
}

// failed tells what could not be done, in our codes.
func (c *Client) failed(verb string, r Resource, namespace, name string, err error) error {
	if err == nil {
		return nil
	}
	what := strings.TrimPrefix(r.Resource+"."+r.Group, ".")
	what = strings.TrimSuffix(what, ".") + " " + strings.TrimPrefix(namespace+"/"+name, "/")
	out := gatehouse.Errorf(codeOf(err), "couldn't %s %s at %s: %w", verb, what, c.url, err)
	if verb == "create" && apierrors.IsNotFound(err) {
		return out.WithHint("create the namespace %s, or set cluster-namespace", namespace)
	}
	if apierrors.IsForbidden(err) {
		return out.WithHint("the account that Gatehouse uses lacks a right; deploy/ has the roles that it needs")
	}
	return out
}

func codeOf(err error) gatehouse.Code {
	var own *gatehouse.Error
	switch {
	case apierrors.IsNotFound(err):
		return gatehouse.CodeNotFound
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return gatehouse.CodeConflict
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return gatehouse.CodeDenied
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return gatehouse.CodeInvalid
	case errors.As(err, &own):
		return own.Code // of the transport
	}
	return gatehouse.CodeUnavailable
}
