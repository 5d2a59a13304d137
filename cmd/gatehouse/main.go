// Command gatehouse decides which container images a Kubernetes cluster may
// run: registry, scanner, signer, verifier and admission webhook in one binary.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/gatehouse-dev/gatehouse/internal/report"
)

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	go endOnSignal(cancel)
	os.Exit(run(ctx, invoked(os.Args), os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}

// endOnSignal cancels at the first SIGINT or SIGTERM; a second one ends the
// process at once. The system's own handling is back before anybody hears of
// the first: who sees the drain begin and signals again is not swallowed.
func endOnSignal(cancel context.CancelFunc) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	<-signals
	signal.Stop(signals)
	cancel()
	select {
	case again := <-signals: // it came before Stop
		if process, err := os.FindProcess(os.Getpid()); err == nil {
			process.Signal(again)
		}
	default:
	}
}

// run is main without the process: 0 yes or done, 1 the answer is no, 2 could
// not decide or do it.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, getenv: getenv}
	cmd := a.rootCmd()
	cmd.SetArgs(containerdFlags(args))
	cmd.SetIn(stdin)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	done, err := cmd.ExecuteContextC(ctx)
	var no answerNo
	switch {
	case err == nil:
		return 0
	case errors.As(err, &no):
		if no.message != "" {
			fmt.Fprintln(stderr, report.PrintableLines(no.message))
		}
		return no.code
	}
	a.fail(done, err)
	return 2
}
