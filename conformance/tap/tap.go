// Package tap writes the Test Anything Protocol: as much of it as the OCI validation suite calls.
// The suite imports a library of this interface that Debian does not have.
package tap

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// T counts the lines of one program.
type T struct {
	count int
	todo  *T
}

// New returns a writer to standard output.
func New() *T { return &T{} }

// Header writes the version and, unless the number of tests is not known yet, the plan.
func (t *T) Header(tests int) {
	fmt.Println("TAP version 13")
	if tests > 0 {
		fmt.Printf("1..%d\n", tests)
	}
}

// AutoPlan writes the plan at the end.
func (t *T) AutoPlan() { fmt.Printf("1..%d\n", t.counter().count) }

// Ok writes the result of one test.
func (t *T) Ok(passed bool, description string) {
	result := "not ok"
	if passed {
		result = "ok"
	}
	t.line(result, description)
}

// Pass writes a test that has passed.
func (t *T) Pass(description string) { t.Ok(true, description) }

// Fail writes a test that has failed.
func (t *T) Fail(description string) { t.Ok(false, description) }

// Skip writes tests that were not run.
func (t *T) Skip(count int, description string) {
	for ; count > 0; count-- {
		t.line("ok", "# SKIP "+description)
	}
}

// Todo returns a writer whose tests are expected to fail.
func (t *T) Todo() *T { return &T{todo: t.counter()} }

// Diagnostic writes a comment.
func (t *T) Diagnostic(message string) {
	for _, line := range strings.Split(message, "\n") {
		fmt.Println("# " + line)
	}
}

// Diagnosticf writes a formatted comment.
func (t *T) Diagnosticf(format string, args ...interface{}) {
	t.Diagnostic(fmt.Sprintf(format, args...))
}

// YAML writes details of the last test; JSON is YAML.
func (t *T) YAML(details interface{}) error {
	text, err := json.MarshalIndent(details, "  ", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(os.Stdout, "  ---\n  %s\n  ...\n", text)
	return err
}

func (t *T) counter() *T {
	if t.todo != nil {
		return t.todo
	}
	return t
}

func (t *T) line(result, description string) {
	counter := t.counter()
	counter.count++
	if t.todo != nil {
		description = "# TODO " + description
	}
	if description = strings.ReplaceAll(description, "\n", " "); description != "" && description[0] != '#' {
		description = "- " + description
	}
	fmt.Printf("%s %d %s\n", result, counter.count, description)
}
