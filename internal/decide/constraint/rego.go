package constraint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/rego"
)

// Limits of the Rego of one template.
const (
	modulesMax    = 50
	violationsMax = 1_000 // that are counted of one evaluation
)

// The names that a template's packages have inside.
var (
	packageTemplate = ast.MustParseRef("data.template")
	packageLib      = ast.MustParseRef("data.lib")
	dataInventory   = ast.MustParseRef("data.inventory")
)

// inputRoots are what rules of templates see; a rule that reads another one would be
// undefined for ever, that is: it would never object.
var inputRoots = []string{"review", "parameters"}

// reviewFields are those of an AdmissionRequest.
var reviewFields = []string{
	"uid", "kind", "resource", "subResource", "requestKind", "requestResource", "requestSubResource",
	"name", "namespace", "operation", "userInfo", "object", "oldObject", "dryRun", "options", "_unstable",
}

// regoEngine is the prepared question of one template.
type regoEngine struct {
	query   opa.PreparedEvalQuery
	looksUp bool
}

// module is the text of one Rego module and where it stands.
type module struct{ field, text string }

// compileRego compiles rego and libs of a template; nil after a problem.
func (r *reader) compileRego(t *template, src source) engine {
	version := ast.RegoV0
	switch v := textAt(src.value, "version"); v {
	case "", "v0":
	case "v1":
		version = ast.RegoV1
	default:
		r.problem(src.field+".version", "unknown version: "+clip(v), "use v0 or v1")
		return nil
	}
	modules := []module{{src.field + ".rego", textAt(src.value, "rego")}}
	for i, lib := range textsAt(src.value, "libs") {
		modules = append(modules, module{fmt.Sprintf("%s.libs[%d]", src.field, i), lib})
	}
	if len(modules) > modulesMax {
		r.problem(src.field+".libs", fmt.Sprintf("has more than %d modules", modulesMax-1), "")
		return nil
	}
	c := regoCompiler{reader: r, template: t, version: version, modules: map[string]*ast.Module{}}
	for i, m := range modules {
		c.module(m, i == 0)
	}
	if c.failed {
		return nil
	}
	return c.compile(src.field)
}

// regoCompiler turns the modules of a template into an engine.
type regoCompiler struct {
	*reader
	template *template
	version  ast.RegoVersion
	modules  map[string]*ast.Module // by field
	failed   bool
}

// fail reports what is wrong at a line of the module in field.
func (c *regoCompiler) fail(field string, row int, message, hint string) {
	c.failed = true
	c.problem(field, message, hint)
	c.line(field, row)
}

// line moves the last problem to a line of the module: a block of text begins on the
// line after its key.
func (c *regoCompiler) line(field string, row int) {
	p := &c.problems[len(c.problems)-1]
	if strings.Contains(textAtPath(c.obj, field), "\n") && row > 0 {
		p.Line += row
	}
}

func (c *regoCompiler) module(m module, entry bool) {
	if len(m.text) > rego.ModuleSizeMax {
		c.fail(m.field, 0, fmt.Sprintf("the module has %d bytes, %d are allowed", len(m.text), rego.ModuleSizeMax), "")
		return
	}
	mod, err := c.parse(m)
	if err != nil {
		c.syntax(m.field, err)
		return
	}
	if mod == nil || mod.Package == nil {
		c.fail(m.field, 0, "the module is empty", "begin with: package NAME")
		return
	}
	own := mod.Package.Path
	if entry {
		if !slices.ContainsFunc(mod.Rules, func(rule *ast.Rule) bool {
			return len(rule.Head.Ref()) > 0 && rule.Head.Ref()[0].Value.Compare(ast.Var("violation")) == 0
		}) {
			c.fail(m.field, 1, "the template has no rule violation, so it judges nothing", `write violation[{"msg": msg}] { … }`)
		}
		mod.Package.Path = packageTemplate
	} else if !own.HasPrefix(packageLib) || len(own) < 3 {
		c.fail(m.field, mod.Package.Location.Row, "a library must be in a package below lib, it is in "+strings.TrimPrefix(own.String(), "data."), "write: package lib.NAME")
	}
	c.imports(m.field, mod)
	c.refs(m.field, mod, own, entry)
	if _, twice := c.modules[m.field]; !twice {
		c.modules[m.field] = mod
	}
}

// parse never panics, whatever the text.
func (c *regoCompiler) parse(m module) (mod *ast.Module, err error) {
	defer func() {
		if recover() != nil {
			mod, err = nil, errors.New("the module cannot be read")
		}
	}()
	return ast.ParseModuleWithOpts(m.field, m.text, ast.ParserOptions{RegoVersion: c.version, Capabilities: rego.Capabilities()})
}

func (c *regoCompiler) syntax(field string, err error) {
	hint := ""
	if c.version == ast.RegoV0 && (strings.Contains(textAtPath(c.obj, field), " contains ") || strings.Contains(textAtPath(c.obj, field), " if {")) {
		hint = "the module is read as Rego v0; for v1 give code with the engine Rego and source {version: v1, rego: …}"
	}
	var list ast.Errors
	if !errors.As(err, &list) || len(list) == 0 {
		c.fail(field, 0, "Rego error: "+err.Error(), hint)
		return
	}
	for i, e := range list {
		if i == 10 {
			return
		}
		row, message := 0, "Rego error: "+e.Message
		if e.Location != nil {
			row = e.Location.Row
		}
		h := hint
		if name, ok := strings.CutPrefix(e.Message, "rego_type_error: undefined function "); ok && h == "" {
			h = missing(name)
		} else if _, name, ok := strings.Cut(e.Message, "undefined function "); ok && h == "" {
			h = missing(name)
		}
		c.fail(field, row, message, h)
	}
}

// missing says why a builtin is not there.
func missing(name string) string {
	if name == "external_data" {
		return "external data providers are not asked: a server outside would decide; let an ImageRule or a ClusterImagePolicy look at images"
	}
	return rego.Removed(name)
}

// imports refuses what a template must not take from elsewhere: it would be undefined.
func (c *regoCompiler) imports(field string, mod *ast.Module) {
	for _, imp := range mod.Imports {
		ref, ok := imp.Path.Value.(ast.Ref)
		if !ok || len(ref) == 0 || !ref[0].Equal(ast.DefaultRootDocument) {
			continue // input, future.keywords, rego.v1
		}
		if !ref.HasPrefix(packageLib) && !ref.HasPrefix(dataInventory) {
			c.fail(field, imp.Location.Row, "the module imports "+ref.String()+", which is not there", "imports are data.lib.NAME and data.inventory")
		}
	}
}

// refs looks at every place that reads data or input.
func (c *regoCompiler) refs(field string, mod *ast.Module, own ast.Ref, entry bool) {
	inventory := false
	for _, imp := range mod.Imports {
		if ref, ok := imp.Path.Value.(ast.Ref); ok && ref.HasPrefix(dataInventory) {
			inventory = true
		}
	}
	for _, rule := range mod.Rules {
		ast.WalkRefs(rule, func(ref ast.Ref) bool {
			switch {
			case len(ref) == 0:
			case ref[0].Equal(ast.DefaultRootDocument):
				inventory = c.dataRef(field, ref, own, entry) || inventory
			case ref[0].Equal(ast.InputRootDocument):
				c.inputRef(field, ref)
			}
			return false
		})
	}
	c.template.looksUp = c.template.looksUp || inventory
}

// dataRef reports whether ref reads the inventory.
func (c *regoCompiler) dataRef(field string, ref, own ast.Ref, entry bool) bool {
	row := 0
	if ref[0].Location != nil {
		row = ref[0].Location.Row
	}
	switch {
	case ref.HasPrefix(dataInventory):
		return true
	case ref.HasPrefix(packageLib):
	case entry && len(own) > 1 && ref.HasPrefix(own):
		c.fail(field, row, "the rule reads its own package as "+ref.String(), "name the rule without its package")
	case len(ref) < 2:
	default:
		c.fail(field, row, "the rule reads "+clip(ref.String())+", which is not there: it would never object", "rules see input, data.lib.NAME and data.inventory")
	}
	return false
}

// kinds finds which kinds the compiled rules look up, as far as they say it.
func (c *regoCompiler) kinds(compiler *ast.Compiler) {
	for _, name := range slices.Sorted(maps.Keys(compiler.Modules)) {
		ast.WalkRefs(compiler.Modules[name], func(ref ast.Ref) bool {
			kind, ok := lookedUp(ref)
			if ok && ref.HasPrefix(dataInventory) && len(c.template.needs) < requiredMax &&
				!slices.ContainsFunc(c.template.needs, func(k []gatehouse.ObjectKind) bool { return k[0] == kind }) {
				c.template.needs = append(c.template.needs, []gatehouse.ObjectKind{kind})
			}
			return false
		})
	}
}

// lookedUp reads the kind out of data.inventory.cluster[version][kind] and
// data.inventory.namespace[name][version][kind].
func lookedUp(ref ast.Ref) (gatehouse.ObjectKind, bool) {
	at := 4
	if len(ref) > 2 && ref[2].Value.Compare(ast.String("namespace")) == 0 {
		at = 5
	}
	if len(ref) <= at {
		return gatehouse.ObjectKind{}, false
	}
	kind, ok := ref[at].Value.(ast.String)
	if !ok {
		return gatehouse.ObjectKind{}, false
	}
	k := gatehouse.ObjectKind{Group: "*", Version: "*", Kind: string(kind)}
	if gv, ok := ref[at-1].Value.(ast.String); ok {
		group, version, has := strings.Cut(string(gv), "/")
		if !has {
			group, version = "", group
		}
		k.Group, k.Version = group, version
	}
	return k, true
}

func (c *regoCompiler) inputRef(field string, ref ast.Ref) {
	if len(ref) < 2 {
		return
	}
	root, ok := ref[1].Value.(ast.String)
	if !ok {
		return
	}
	row := 0
	if ref[0].Location != nil {
		row = ref[0].Location.Row
	}
	if !slices.Contains(inputRoots, string(root)) {
		hint := "input has the fields " + strings.Join(inputRoots, " and ")
		switch root {
		case "constraint":
			hint = "the constraint's parameters are input.parameters"
		case "object", "request":
			hint = "the object is input.review.object"
		}
		c.fail(field, row, "the rule reads input."+clip(string(root))+", which is never filled: it would never object", hint)
		return
	}
	if root != "review" || len(ref) < 3 {
		return
	}
	if name, ok := ref[2].Value.(ast.String); ok && !slices.Contains(reviewFields, string(name)) {
		c.warn(field, "the rule reads input.review."+clip(string(name))+", which is never filled", "input.review has the fields of an AdmissionRequest: "+strings.Join(reviewFields[:15], ", "))
		c.line(field, row)
	}
}

// compile prepares the question. Parameters and the inventory come with each one, so
// that all constraints share the compiled template.
func (c *regoCompiler) compile(field string) (e engine) {
	defer func() {
		if recover() != nil {
			c.problem(field, "the Rego of the template cannot be compiled", "")
			e = nil
		}
	}()
	caps := rego.Capabilities()
	compiler := ast.NewCompiler().WithCapabilities(caps).WithDefaultRegoVersion(c.version)
	if compiler.Compile(c.modules); compiler.Failed() {
		for _, err := range compiler.Errors {
			at := field
			if err.Location != nil && c.modules[err.Location.File] != nil {
				at = err.Location.File
			}
			c.syntax(at, ast.Errors{err})
		}
		return nil
	}
	c.kinds(compiler)
	query := "data.template.violation"
	if c.template.looksUp {
		query = `data.template.violation with input as {"review": input.review, "parameters": input.parameters} with data.inventory as input.inventory`
	}
	prepared, err := opa.New(
		opa.Query(query), opa.Compiler(compiler), opa.SetRegoVersion(ast.RegoV0), opa.Capabilities(caps),
	).PrepareForEval(context.Background())
	if err != nil {
		c.problem(field, "the Rego of the template cannot be prepared: "+err.Error(), "")
		return nil
	}
	return &regoEngine{query: prepared, looksUp: c.template.looksUp}
}

// violations evaluates the rule. Unlike rules of our own, a builtin that fails makes
// its expression undefined, as in Gatekeeper: templates are written for that.
func (e *regoEngine) violations(ctx context.Context, q question) ([]string, error) {
	input := [][2]*ast.Term{
		{ast.StringTerm("review"), ast.NewTerm(q.review.rego())},
		{ast.StringTerm("parameters"), ast.NewTerm(q.parameters.rego())},
	}
	if e.looksUp {
		input = append(input, [2]*ast.Term{ast.StringTerm("inventory"), ast.NewTerm(q.inventory.value)})
	}
	results, err := e.query.Eval(ctx, opa.EvalParsedInput(ast.NewObject(input...)), opa.EvalTime(q.review.now))
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	var out []string
	seen := map[string]bool{}
	for _, res := range results {
		for _, x := range res.Expressions {
			for _, item := range items(x.Value) {
				message, key := violation(item)
				if len(out) >= violationsMax || seen[key] {
					continue
				}
				seen[key] = true
				out = append(out, message)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

// items are the elements of a set, or the keys of an object.
func items(v any) []any {
	switch v := v.(type) {
	case []any:
		return v
	case map[string]any:
		var out []any
		for key := range v {
			out = append(out, key)
		}
		return out
	case nil:
		return nil
	}
	return []any{v}
}

// violation reads message and identity of one: two that differ only in what else they
// hold are one, as in Gatekeeper. What is not of the form objects, too.
func violation(item any) (message, key string) {
	m, _ := item.(map[string]any)
	message, ok := m["msg"].(string)
	if !ok {
		message = fmt.Sprintf("the rule violation yields %v, which has no text msg", item)
	}
	details, err := json.Marshal(m["details"])
	if err != nil {
		details = []byte(err.Error())
	}
	return message, message + "\x00" + string(details)
}

// textAtPath finds the text at a field path such as spec.targets[0].libs[1].
func textAtPath(obj map[string]any, path string) string {
	var v any = obj
	for part := range strings.SplitSeq(path, ".") {
		name, rest, indexed := strings.Cut(part, "[")
		m, _ := v.(map[string]any)
		v = m[name]
		if !indexed {
			continue
		}
		var i int
		if _, err := fmt.Sscanf(rest, "%d]", &i); err != nil {
			return ""
		}
		list, _ := v.([]any)
		if i < 0 || i >= len(list) {
			return ""
		}
		v = list[i]
	}
	s, _ := v.(string)
	return s
}
