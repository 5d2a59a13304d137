package operator

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/constraint"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// as sends requests in somebody's name.
type as struct {
	user string
	http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (a as) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Impersonate-User", a.user)
	return a.RoundTripper.RoundTrip(req)
}

// limited is a client in the name of a user.
func limited(t *testing.T, k *e2e.Kube, user string) *kube.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(k.CA)
	way := egress.New(egress.Config{UserTyped: true, RootCAs: pool})
	t.Cleanup(way.Close)
	c, err := kube.New(kube.Options{URL: k.URL, Transport: as{user, bearer{k.Token, way.Transport()}}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestConstraintsOfACluster makes the kinds of constraints with the few rights that the
// manifests give: it may add definitions, and change those of names that are known before.
func TestConstraintsOfACluster(t *testing.T) {
	tool.Need(t, "kube-apiserver")
	k := e2e.StartKube(t, e2e.KubeOptions{})
	k.Namespace(t, "home", nil)
	const rbac = "/apis/rbac.authorization.k8s.io/v1/"
	k.Must(t, http.MethodPost, rbac+"clusterroles", []byte(`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"few"},"rules":[
		{"apiGroups":["apiextensions.k8s.io"],"resources":["customresourcedefinitions"],"verbs":["get","list","watch","create"]},
		{"apiGroups":["apiextensions.k8s.io"],"resources":["customresourcedefinitions"],"resourceNames":["constrainttemplates.templates.gatekeeper.sh"],"verbs":["patch"]},
		{"apiGroups":[""],"resources":["namespaces","secrets","configmaps"],"verbs":["get","list","watch"]},
		{"apiGroups":["templates.gatekeeper.sh"],"resources":["*"],"verbs":["get","list","watch"]}]}`))
	k.Must(t, http.MethodPost, rbac+"clusterrolebindings", []byte(`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"few"},
		"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"few"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"few"}]}`))
	c := limited(t, k, "few")
	log := slog.New(slog.DiscardHandler)
	v, err := NewView(ViewOptions{Client: c, Namespace: "home", Log: log, Kinds: []PolicyKind{
		{Group: groupTemplates, Plural: "constrainttemplates", Versions: []string{"v1"}, OursOnly: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = v.Run(t.Context()) }()
	grammar := constraint.SchemaConstraint()
	keeper := NewKeeper(KeeperOptions{Client: c, View: v, Namespace: "home", Log: log, Constraints: &grammar, Definitions: []Definition{{
		Group: groupTemplates, Kind: kindTemplate, Plural: "constrainttemplates", Singular: "constrainttemplate", Versions: []string{"v1"}, Grammar: constraint.Schema(),
	}}})
	served := func(path string) func() bool {
		return func() bool {
			_ = keeper.definitions(t.Context()) // what fails shows in what is not served
			return k.Call(t, http.MethodGet, path, nil).OK()
		}
	}
	const templates, constraints = "/apis/templates.gatekeeper.sh/v1/constrainttemplates", "/apis/constraints.gatekeeper.sh/v1beta1/"
	eventually(t, "templates are served", served(templates))
	template := func(name, schema string) []byte {
		return fmt.Appendf(nil, `{"apiVersion":"templates.gatekeeper.sh/v1","kind":"ConstraintTemplate","metadata":{"name":%q},
			"spec":{"crd":{"spec":{"names":{"kind":%q},"validation":{"openAPIV3Schema":%s}}},"targets":[]}}`, strings.ToLower(name), name, schema)
	}
	one := func(kind, parameters string) e2e.Status {
		return k.Call(t, http.MethodPost, constraints+strings.ToLower(kind), fmt.Appendf(nil,
			`{"apiVersion":"constraints.gatekeeper.sh/v1beta1","kind":%q,"metadata":{"generateName":"c-"},"spec":{"parameters":%s}}`, kind, parameters))
	}
	k.Must(t, http.MethodPost, templates, template("Typed", `{"type":"object","properties":{"n":{"type":"integer"}}}`))
	eventually(t, "its constraints are served", served(constraints+"typed"))
	if s := one("Typed", `{"n":"x"}`); s.OK() || !strings.Contains(s.Message, "spec.parameters.n") {
		t.Errorf("parameters that do not fit: %d %s", s.Code, s.Message)
	}
	if s := one("Typed", `{"n":1}`); !s.OK() {
		t.Errorf("parameters that fit: %s", s.Message)
	}
	// The API server takes no default that does not fit.
	k.Must(t, http.MethodPost, templates, template("Loose", `{"type":"object","properties":{"n":{"type":"integer","default":"x"}}}`))
	eventually(t, "constraints of a schema that it refuses are served", served(constraints+"loose"))
	if s := one("Loose", `{"n":"x"}`); !s.OK() {
		t.Errorf("parameters that the webhook judges: %s", s.Message)
	}
	// Another schema needs a right that it does not have.
	there := k.Must(t, http.MethodGet, templates+"/typed", nil)
	k.Must(t, http.MethodPut, templates+"/typed", []byte(strings.Replace(string(there.Body), `"integer"`, `"string"`, 1)))
	eventually(t, "the missing right is told", func() bool { return gatehouse.CodeOf(keeper.definitions(t.Context())) == gatehouse.CodeDenied })
	// What Gatekeeper has taken over is its own.
	definition := k.Must(t, http.MethodGet, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/constrainttemplates.templates.gatekeeper.sh", nil)
	k.Must(t, http.MethodPut, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/constrainttemplates.templates.gatekeeper.sh",
		[]byte(strings.Replace(string(definition.Body), `"labels":{`, `"labels":{"gatekeeper.sh/system":"yes",`, 1)))
	eventually(t, "its templates are not ours to act for", func() bool { return len(v.templates()) == 0 && keeper.definitions(t.Context()) == nil })
}
