# The commands of this checkout. `make` alone lists them.

CARGO ?= cargo
# Where rustup puts cargo; a shell that was open before the installation does not know it yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench schema fmt lint ci

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Fetch ONNX Runtime into .onnxruntime/, unless it is there
	@scripts/setup.sh

demo: setup ## Build, serve examples/fraud on 127.0.0.1:8080, send it one request
	@scripts/demo.sh

test: setup ## Run every test, doctests included
	@scripts/oracles.sh
	PYTHONPATH=$(CURDIR)/target/oracles $(CARGO) test --workspace

bench: setup ## Run the benches; BENCH=one_row runs one of them
	$(CARGO) bench --bench '$(or $(BENCH),*)'

schema: ## Write docs/project.schema.json anew from the project file's types
	@scripts/schema.sh

fmt: ## Format the code
	$(CARGO) fmt --all

lint: ## Run clippy, warnings denied
	$(CARGO) clippy --workspace --all-targets -- -D warnings

ci: ## Run everything that must pass before a change goes in
	@.ci/run
