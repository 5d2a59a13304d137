package arch_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// egressFree are the boxes that may open connections.
var egressFree = []string{"egress"}

// programsFree are the boxes that may start programs: what a person names with
// --key is reached through one of Sigstore's KMS plugins.
var programsFree = []string{"keyref"}

// egressOnly are names that open connections past internal/egress, or ask DNS,
// which is a message to a stranger, too. "*" is the whole package.
var egressOnly = map[string][]string{
	"net/http": {"DefaultClient", "DefaultTransport", "Transport", "Get", "Head", "Post", "PostForm"},
	"net": {
		"Dialer", "Dial", "DialTimeout", "DialTCP", "DialUDP", "DialIP", "DialUnix", "Resolver", "DefaultResolver", "ListenPacket", "ListenUDP",
		"LookupHost", "LookupIP", "LookupAddr", "LookupCNAME", "LookupMX", "LookupNS", "LookupSRV", "LookupTXT", "LookupPort",
		"ResolveTCPAddr", "ResolveUDPAddr", "ResolveIPAddr", "FileConn",
	},
	"crypto/tls":                   {"Dial", "DialWithDialer", "Dialer", "Client"},
	"net/http/httputil":            {"ReverseProxy", "NewSingleHostReverseProxy"},
	"syscall":                      {"Connect", "Socket", "Sendto"},
	"golang.org/x/sys/unix":        {"Connect", "Socket", "Sendto"},
	"os/exec":                      {"Command", "CommandContext", "Cmd"},
	"os":                           {"StartProcess"},
	"net/smtp":                     {"*"},
	"net/rpc":                      {"*"},
	"golang.org/x/net/proxy":       {"*"},
	"golang.org/x/net/websocket":   {"*"},
	"golang.org/x/net/http2":       {"Transport"},
	"golang.org/x/crypto/ssh":      {"*"},
	"github.com/gorilla/websocket": {"*"},
	"github.com/coder/websocket":   {"*"},
	"google.golang.org/grpc":       {"*"},
}

// dialling lists what f does that opens connections. It sees names, not types:
// aliases are followed, dot imports of these packages are refused.
func dialling(f *ast.File) (problems []string) {
	names := map[string]string{}
	for _, spec := range f.Imports {
		imp, _ := strconv.Unquote(spec.Path.Value)
		local := imp[strings.LastIndex(imp, "/")+1:]
		if spec.Name != nil {
			local = spec.Name.Name
		}
		bad, listed := egressOnly[imp]
		switch {
		case listed && bad[0] == "*":
			problems = append(problems, "imports "+imp)
		case listed && (local == "." || local == "_"):
			problems = append(problems, "imports "+imp+" as "+local)
		}
		names[local] = imp
	}
	fine := map[ast.Node]bool{} // mentions of http.Client that make none without a transport
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.StarExpr: // *http.Client, the type
			fine[n.X] = true
		case *ast.CompositeLit:
			fine[n.Type] = hasTransport(n)
		case *ast.SelectorExpr:
			id, ok := n.X.(*ast.Ident)
			if !ok {
				return true
			}
			imp := names[id.Name]
			if slices.Contains(egressOnly[imp], n.Sel.Name) {
				problems = append(problems, fmt.Sprintf("uses %s.%s", imp, n.Sel.Name))
			}
			if imp == "net/http" && n.Sel.Name == "Client" && !fine[n] {
				problems = append(problems, "has an http.Client without a Transport, which is http.DefaultTransport")
			}
		}
		return true
	})
	return problems
}

func hasTransport(lit *ast.CompositeLit) bool {
	return slices.ContainsFunc(lit.Elts, func(e ast.Expr) bool {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			return false
		}
		key, _ := kv.Key.(*ast.Ident)
		value, _ := kv.Value.(*ast.Ident)
		return key != nil && key.Name == "Transport" && (value == nil || value.Name != "nil")
	})
}

// TestDiallingIsSeen holds the check itself to what it must and must not see.
func TestDiallingIsSeen(t *testing.T) {
	for src, caught := range map[string]bool{
		`import "net/http"; var c = http.DefaultClient`:                                              true,
		`import "net/http"; var c = http.Client{}`:                                                   true,
		`import "net/http"; var c = &http.Client{Timeout: 1}`:                                        true,
		`import "net/http"; var c = &http.Client{Transport: nil}`:                                    true,
		`import "net/http"; var c = new(http.Client)`:                                                true,
		`import "net/http"; var c http.Client`:                                                       true,
		`import "net/http"; type s struct{ http.Client }`:                                            true,
		`import h "net/http"; var c = h.Get`:                                                         true,
		`import . "net/http"; var c = DefaultClient`:                                                 true,
		`import "net/http"; var t = &http.Transport{}`:                                               true,
		`import "net/http"; type t = http.Transport`:                                                 true,
		`import "net"; var d net.Dialer`:                                                             true,
		`import "net"; var r = &net.Resolver{}`:                                                      true,
		`import n "net"; func f() { n.LookupHost("a") }`:                                             true,
		`import "crypto/tls"; func f() { tls.Dial("tcp", "a:1", nil) }`:                              true,
		`import "golang.org/x/net/websocket"`:                                                        true,
		`import "net/http/httputil"; var p = &httputil.ReverseProxy{}`:                               true,
		`import "os/exec"; func f() { exec.Command("curl", "http://a") }`:                            true,
		`import run "os/exec"; var c run.Cmd`:                                                        true,
		`import . "os/exec"`:                                                                         true,
		`import "os/exec"; func f() { exec.LookPath("a") }`:                                          false,
		`import "net/smtp"`:                                                                          true,
		`import "syscall"; var f = syscall.Connect`:                                                  true,
		`import "net/http"; func f(rt http.RoundTripper) any { return &http.Client{Transport: rt} }`: false,
		`import "net/http"; func f(c *http.Client) {}`:                                               false,
		`import "net/http"; var s http.Server; var h http.Handler`:                                   false,
		`import "net"; var l, _ = net.Listen("tcp", ":0")`:                                           false,
		`import "net"; var ip = net.ParseIP("::1")`:                                                  false,
		`import "crypto/tls"; var c tls.Config`:                                                      false,
		`import "syscall"; var n = syscall.SIGTERM`:                                                  false,
		`import http "example.com/other"; var c = http.DefaultClient`:                                false,
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x; "+src, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if got := dialling(f); (len(got) > 0) != caught {
			t.Errorf("%s: %v, want caught = %v", src, got, caught)
		}
	}
}
