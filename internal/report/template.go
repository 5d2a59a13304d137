package report

import (
	"embed"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"text/template"

	"github.com/gatehouse-dev/gatehouse"
)

//go:embed templates/*.tpl
var ownTemplates embed.FS

// templateSizeMax bounds the file of a template, in bytes.
const templateSizeMax = 4 << 20

// Templates lists the templates that the program brings.
func Templates() []string {
	entries, err := ownTemplates.ReadDir("templates")
	if err != nil {
		panic(err) // it is compiled in
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".tpl"))
	}
	return names
}

// LoadTemplate returns the text that the value of --template means: the text
// itself, or after @ a file. Where there is no such file, the last part of its
// name may be that of one of [Templates]: "@html", "@contrib/gitlab.tpl".
// Errors: CodeInvalid, CodeTooLarge.
func LoadTemplate(value string) (string, error) {
	name, isFile := strings.CutPrefix(value, "@")
	switch {
	case value == "":
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "the format template needs a template").
			WithHint("--template '{{ len . }}', --template @FILE, or one of: %s", "@"+strings.Join(Templates(), ", @"))
	case !isFile:
		return value, nil
	}
	b, err := readTemplate(name)
	if errors.Is(err, fs.ErrNotExist) {
		own := strings.TrimSuffix(path.Base(name), ".tpl")
		b, err = ownTemplates.ReadFile("templates/" + own + ".tpl")
	}
	var known *gatehouse.Error
	switch {
	case errors.As(err, &known):
		return "", err
	case err != nil:
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "the template %s cannot be read: %w", name, err).
			WithHint("name a file, or one of: %s", "@"+strings.Join(Templates(), ", @"))
	}
	return string(b), nil
}

func readTemplate(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, templateSizeMax+1))
	if err == nil && len(b) > templateSizeMax {
		err = gatehouse.Errorf(gatehouse.CodeTooLarge, "the template %s has more than %d bytes", name, templateSizeMax)
	}
	return b, err
}

// CheckTemplate says what is wrong with a template before the work is done.
// Errors: CodeInvalid.
func CheckTemplate(text string) error {
	_, err := parseTemplate(text, Report{}, Options{})
	return err
}

func parseTemplate(text string, r Report, o Options) (*template.Template, error) {
	t, err := template.New("template").Funcs(templateFuncs(r, o)).Parse(text)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the template cannot be parsed: %w", err).
			WithHint("docs/scanner.md lists the functions and fields that a template has")
	}
	return t, nil
}

func writeTemplate(w io.Writer, r Report, o Options) error {
	t, err := parseTemplate(o.Template, r, o)
	if err != nil {
		return err
	}
	if err := t.Execute(w, trivyResults(r)); err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the template fails: %w", err).
			WithHint("docs/scanner.md lists the functions and fields that a template has")
	}
	return nil
}
