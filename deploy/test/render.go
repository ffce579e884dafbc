// Renders the templates of a chart as Helm does: the same engine, and the few functions of Helm's that our chart uses.
// Nothing but Go's own library, so that it runs wherever Go is.
//
// Standard input:  {"templates": {NAME: TEXT}, "values": [{…}], "chart": {…}, "namespace": "kube-system"}
// Standard output: [{NAME: TEXT}], one for each of the values
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"
	"text/template"
)

type question struct {
	Templates map[string]string `json:"templates"`
	Values    []any             `json:"values"`
	Chart     any               `json:"chart"`
	Namespace string            `json:"namespace"`
}

// Helm takes these from sprig, and adds toYaml. Whatever else a template calls is an error here.
var functions = template.FuncMap{
	"default": func(instead, given any) any {
		if truth, ok := template.IsTrue(given); truth && ok {
			return given
		}
		return instead
	},
	"nindent": func(spaces int, text string) string {
		start := "\n" + strings.Repeat(" ", spaces)
		return start + strings.ReplaceAll(text, "\n", start)
	},
	"quote":  func(given any) string { return fmt.Sprintf("%q", fmt.Sprint(given)) },
	"toYaml": toYAML,
}

// One line for each entry; what is inside of it is JSON, which is YAML too.
func toYAML(given any) (string, error) {
	var lines []string
	add := func(start string, value any) error {
		text, err := json.Marshal(value)
		lines = append(lines, start+string(text))
		return err
	}
	switch value := given.(type) {
	case map[string]any:
		for name, inner := range value {
			if err := add(name+": ", inner); err != nil {
				return "", err
			}
		}
		sort.Strings(lines)
	case []any:
		for _, inner := range value {
			if err := add("- ", inner); err != nil {
				return "", err
			}
		}
	}
	if len(lines) == 0 {
		text, err := json.Marshal(given)
		return string(text), err
	}
	return strings.Join(lines, "\n"), nil
}

func render(asked question, values any) (map[string]string, error) {
	data := map[string]any{
		"Values":  values,
		"Chart":   asked.Chart,
		"Release": map[string]any{"Name": "weir", "Namespace": asked.Namespace},
	}
	rendered := map[string]string{}
	for name, text := range asked.Templates {
		parsed, err := template.New(name).Funcs(functions).Parse(text)
		if err != nil {
			return nil, err
		}
		var out strings.Builder
		if err := parsed.Execute(&out, data); err != nil {
			return nil, err
		}
		// Helm's own last step: a value that is missing is nothing.
		rendered[name] = strings.ReplaceAll(out.String(), "<no value>", "")
	}
	return rendered, nil
}

func answer() error {
	var asked question
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		return err
	}
	answers := []map[string]string{}
	for _, values := range asked.Values {
		rendered, err := render(asked, values)
		if err != nil {
			return err
		}
		answers = append(answers, rendered)
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

func main() {
	if err := answer(); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}
