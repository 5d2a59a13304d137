package config_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/config"
)

var update = flag.Bool("update", false, "write docs/config.md")

const manualHead = `# Settings

Every setting has one name: the key in the YAML file, the flag (` + "`--key`" + `) and,
with ` + "`GATEHOUSE_`" + ` before it and ` + "`_` for `-`" + ` in capitals, the environment variable. A
flag is stronger than a variable, a variable than the file, the file than the
default. The file is ` + "`gatehouse.yaml`" + ` in the current directory if it exists, or what
` + "`--config FILE`" + ` or ` + "`GATEHOUSE_CONFIG`" + ` names. It is read by every command but
` + "`quickstart`" + `: those below are settings of the server, the flags of other commands
(` + "`server`, `severity`" + `, …) are keys, too. An unknown key is an error that names the
line and the nearest key. A ` + "`server`" + ` that a file names which was only found in the
current directory does not get ` + "`GATEHOUSE_PASSWORD`" + `.

` + "`gatehouse config check`" + ` tells whether the settings can work, ` + "`gatehouse config print`" + `
shows them, passwords left out. Durations are written ` + "`90s`, `10m`, `24h`, `14d`" + `,
sizes ` + "`1048576`, `512KiB`, `50MiB`" + `; lists in variables are divided by commas.

Secrets stand in files where they can: ` + "`database-file`" + `, and in the environment
` + "`GATEHOUSE_ADMIN_PASSWORD_FILE`" + ` beside ` + "`GATEHOUSE_ADMIN_PASSWORD`" + `, which set the
password of the administrator that a first start makes.

<!-- This page is made from the comments in internal/config/config.go:
     go test ./internal/config -run Manual -update -->

| key | default | what |
|---|---|---|
`

// TestManual keeps docs/config.md what the comments of the struct say.
func TestManual(t *testing.T) {
	comments := commentsOf(t)
	defaults := config.Default()
	b := &strings.Builder{}
	b.WriteString(manualHead)
	values := defaults.Values()
	for i, key := range config.Keys() {
		if comments[key] == "" || config.Help()[i] == "" {
			t.Errorf("%s has no comment or no help", key)
		}
		value := values[i].String()
		if value != "" {
			value = "`" + value + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", key, value, strings.ReplaceAll(comments[key], "|", "\\|"))
	}
	path := filepath.Join("..", "..", "docs", "config.md")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != b.String() {
		t.Error("docs/config.md is not what the comments say; run go test ./internal/config -run Manual -update")
	}
}

func commentsOf(t *testing.T) map[string]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || spec.Name.Name != "Config" {
			return true
		}
		for _, field := range spec.Type.(*ast.StructType).Fields.List {
			tag := reflect.StructTag(strings.Trim(field.Tag.Value, "`"))
			out[tag.Get("yaml")] = strings.Join(strings.Fields(field.Doc.Text()), " ")
		}
		return false
	})
	return out
}
