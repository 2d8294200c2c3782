# Thin on purpose: each target calls a script under tools/, or cargo. `make help` lists them.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export CARGO_TERM_COLOR ?= auto

# The two test binaries that start control planes of their own or run for long choose these.
E2E_THREADS ?= 8
SOAK_SEEDS ?= 5000
SOAK_FUZZ_SECONDS ?= 60

##@ Use

.PHONY: demo
demo: ## Show the loop turning on a local control plane (DEMO_KUBECONFIG=… uses a cluster of yours)
	tools/demo.sh
	tools/demo.sh hints

.PHONY: cluster-up
cluster-up: ## Start a local control plane; its kubeconfig is .run/kubeconfig
	tools/cluster.sh up

.PHONY: cluster-down
cluster-down: ## Stop it, and what the demo left running, and throw its data away
	tools/cluster.sh down

.PHONY: tools
tools: ## Build the pinned tools into .tools/bin: only what is missing or out of date
	tools/build.sh

##@ Check

.PHONY: test
test: ## Everything: lint, unit, property, simulation, generated files, chart, image, end to end
	tools/test.sh

.PHONY: lint
lint: ## Formatting, clippy, licences and advisories, shell scripts
	tools/test.sh format clippy dependencies scripts

.PHONY: unit
unit: ## Unit, property, simulation and fidelity tests
	tools/test.sh unit

.PHONY: chart-test
chart-test: ## helm lint, and every rendered object shown to a real API server
	tools/test.sh chart

.PHONY: examples-test
examples-test: ## The proxies parse their examples; the real definitions of other projects take the others
	tools/test.sh examples

.PHONY: image-test
image-test: ## Build the image and look inside
	tools/test.sh image

.PHONY: e2e
e2e: ## The operator against a real API server, under the chart's own RBAC
	E2E_THREADS=$(E2E_THREADS) tools/test.sh e2e

.PHONY: soak
soak: ## The simulation with many more seeds (SOAK_SEEDS=5000), then every fuzz target for SOAK_FUZZ_SECONDS=60
	TOKENWARD_SEEDS=$(SOAK_SEEDS) cargo test --release --features testkit --test simulation -- --nocapture
	SOAK_FUZZ_SECONDS=$(SOAK_FUZZ_SECONDS) tools/fuzz.sh

.PHONY: fuzz
fuzz: ## Every fuzz target for SOAK_FUZZ_SECONDS=60 (tools/fuzz.sh TARGET … runs one)
	SOAK_FUZZ_SECONDS=$(SOAK_FUZZ_SECONDS) tools/fuzz.sh $(FUZZ_ARGS)

.PHONY: bench
bench: ## Hot-path benches, then gate, ledger and operator at scale against a real API server
	tools/bench.sh

##@ Make

.PHONY: build
build: ## The binary: target/release/tokenward
	cargo build --release --locked

.PHONY: generate
generate: ## Write the generated files (CRDs, chart CRDs, references)
	tools/generate.sh

.PHONY: image
image: ## An image tar in dist/, without a container engine
	tools/image.sh

.PHONY: clean
clean: cluster-down ## Remove what was built, except the pinned tools
	rm -rf target dist .run fuzz/target

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
