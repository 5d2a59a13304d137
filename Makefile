# make run    builds gatehouse and tells its story; needs Go and nothing else
# make test   the tests that need no big build; make e2e the others

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BIN     := bin/gatehouse
RUNNER  := $(GO) run -buildvcs=false ./test/run

.PHONY: build run test e2e bench lint deps fmt clean help
.DEFAULT_GOAL := help

build: ## build bin/gatehouse, a static binary
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION) -X github.com/gatehouse-dev/gatehouse/internal/server.Version=$(VERSION)" -o $(BIN) ./cmd/gatehouse

run: build ## build, then run the quickstart: the whole story on this machine
	./$(BIN) quickstart

test: ## run every test that needs no big build; installs what it needs as root on Debian
	@$(RUNNER) test

e2e: ## run the tests against a real kube-apiserver and cosign; the first run builds them
	@$(RUNNER) e2e

bench: ## measure speed and memory, print a table
	@$(GO) run -buildvcs=false ./test/bench

lint: ## run gofmt, vet, staticcheck and the import test
	@$(RUNNER) lint

deps: ## write deps.txt: every package in the binary
	CGO_ENABLED=0 GOOS=linux GOARCH=amd64 $(GO) list -deps -f '{{if not .Standard}}{{.ImportPath}}{{end}}' ./cmd/gatehouse > deps.txt

fmt: ## format the code
	$(GO) fmt ./...

clean: ## remove what make build left; the tool cache stays
	rm -rf bin

help: ## say what there is
	@grep -E '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## /  make \1\t/' | expand -t 16
