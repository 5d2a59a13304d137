// Package expr compiles and evaluates expressions in CEL with the functions, types and
// cost limits that Kubernetes gives to ValidatingAdmissionPolicies: an expression and
// values go in, a value comes out. It reads nothing but the values, not even a clock,
// and what costs too much or takes too long is an error.
package expr

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/google/cel-go/cel"
	"k8s.io/apimachinery/pkg/util/version"
	kube "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// Limits of expressions.
const (
	LengthMax    = 20_000 // bytes of one
	VariablesMax = 200    // of one Env
	// BudgetMax is what all evaluations of one [Scope] may cost together, in CEL's units:
	// the API server's limit for one policy, about a second.
	BudgetMax = 10_000_000
	// checkEvery is after how many rounds of a loop the context is asked.
	checkEvery = 100
)

// Names of the values of an admission request.
const (
	Object    = "object"
	OldObject = "oldObject"
	Request   = "request"
	Namespace = "namespaceObject"
	Variables = "variables"
)

// Kind is what an expression must yield.
type Kind int

const (
	Any Kind = iota
	Bool
	Text
)

// Options say which values expressions see.
type Options struct {
	// Admission: object, oldObject, request and namespaceObject, as in a
	// ValidatingAdmissionPolicy.
	Admission bool
	// Values are more names, of values of any type.
	Values []string
	// Inner are names that only variables see.
	Inner []string
	// Budget is what all evaluations of one [Scope] may cost together; 0 is BudgetMax.
	Budget int64
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

// Env is what expressions are compiled in. It is filled by one goroutine, which adds
// variables in the order in which they use each other; after that it and its programs
// are safe for concurrent use.
type Env struct {
	outer, inner *environment.EnvSet
	variables    *kube.DeclType
	programs     []variable
	budget       int64
	used         map[string]bool // names of values
}

type variable struct {
	name    string
	program cel.Program
}

// New makes an Env. An error means that a name cannot be one.
func New(o Options) (e *Env, err error) {
	defer recovered(&err)
	if o.Budget <= 0 {
		o.Budget = BudgetMax
	}
	e = &Env{budget: o.Budget, used: map[string]bool{}, variables: kube.NewObjectType("kubernetes.variables", map[string]*kube.DeclField{})}
	options := []cel.EnvOption{cel.Variable(Variables, e.variables.CelType())}
	types := []*kube.DeclType{e.variables}
	if o.Admission {
		request, namespace := requestType(), namespaceType()
		options = append(options, cel.Variable(Object, cel.DynType), cel.Variable(OldObject, cel.DynType),
			cel.Variable(Request, request.CelType()), cel.Variable(Namespace, namespace.CelType()))
		types = append(types, request, namespace)
	}
	base := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
	// Options without a version would be those of Kubernetes 1.0, that is: of all.
	always := version.MajorMinor(1, 0)
	e.outer, err = base.Extend(environment.VersionedOptions{
		IntroducedVersion: always, EnvOptions: append(options, named(o.Values)...), DeclTypes: types,
	}, environment.StrictCostOpt)
	if err != nil {
		return nil, err
	}
	e.inner = e.outer
	if len(o.Inner) > 0 {
		e.inner, err = e.outer.Extend(environment.VersionedOptions{IntroducedVersion: always, EnvOptions: named(o.Inner)})
	}
	return e, err
}

func named(names []string) []cel.EnvOption {
	out := make([]cel.EnvOption, len(names))
	for i, n := range names {
		out[i] = cel.Variable(n, cel.DynType)
	}
	return out
}

// Variable adds a value that later expressions see as variables.name. It is computed
// when it is asked for, once per [Scope].
func (e *Env) Variable(name, expression string) error {
	if !variableName.MatchString(name) {
		return fmt.Errorf("%q is no name of a variable: letters, digits and _", name)
	}
	if _, taken := e.variables.Fields[name]; taken {
		return fmt.Errorf("there is a variable %s already", name)
	}
	if len(e.programs) >= VariablesMax {
		return fmt.Errorf("there are more than %d variables", VariablesMax)
	}
	program, out, err := e.compile(e.inner, expression, Any)
	if err != nil {
		return err
	}
	e.variables.Fields[name] = kube.NewDeclField(name, declared(out), true, nil, nil)
	e.programs = append(e.programs, variable{name, program})
	return nil
}

// Program is a compiled expression.
type Program struct{ program cel.Program }

// Compile reads an expression that yields what is wanted. The error says where in it
// something is wrong.
func (e *Env) Compile(expression string, want Kind) (*Program, error) {
	program, _, err := e.compile(e.outer, expression, want)
	if err != nil {
		return nil, err
	}
	return &Program{program}, nil
}

// Uses reports whether an expression that was compiled reads the value of that name.
func (e *Env) Uses(name string) bool { return e.used[name] }

func (e *Env) compile(set *environment.EnvSet, expression string, want Kind) (p cel.Program, out *cel.Type, err error) {
	defer recovered(&err)
	if len(expression) > LengthMax {
		return nil, nil, fmt.Errorf("the expression has %d bytes, %d are allowed", len(expression), LengthMax)
	}
	if strings.TrimSpace(expression) == "" {
		return nil, nil, fmt.Errorf("the expression is empty")
	}
	env, err := set.Env(environment.StoredExpressions)
	if err != nil {
		return nil, nil, err
	}
	ast, issues := env.Compile(expression)
	if issues != nil && issues.Err() != nil {
		return nil, nil, complaint(issues)
	}
	out = ast.OutputType()
	if want == Bool && !out.IsExactType(cel.BoolType) || want == Text && !out.IsExactType(cel.StringType) {
		wanted := map[Kind]string{Bool: "true or false (bool)", Text: "a text (string)"}[want]
		return nil, nil, fmt.Errorf("must yield %s, it yields %s", wanted, out)
	}
	for _, r := range ast.NativeRep().ReferenceMap() {
		if r.Name != "" {
			e.used[r.Name] = true
		}
	}
	p, err = env.Program(ast, cel.InterruptCheckFrequency(checkEvery))
	return p, out, err
}

// complaint puts what the compiler says into one line.
func complaint(issues *cel.Issues) error {
	var said []string
	for i, e := range issues.Errors() {
		if i == 5 {
			said = append(said, "…")
			break
		}
		said = append(said, fmt.Sprintf("%d:%d: %s", e.Location.Line(), e.Location.Column()+1, e.Message))
	}
	return fmt.Errorf("%s", strings.Join(said, "; "))
}

// recovered turns a panic of the CEL library into an error: what it is given is foreign.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the expression cannot be handled: %v", p)
	}
}
