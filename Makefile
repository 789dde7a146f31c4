# The few things to type here; `make` alone lists them. What they build goes to CARGO_TARGET_DIR, by default
# ~/.cache/schedtrace/target.

.DEFAULT_GOAL := help
.PHONY: help demo test truth lint bpf

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Record this machine for five seconds, and report why tasks waited
	@scripts/demo.sh

test: ## Run every test; as root, those on the running kernel too
	@scripts/test.sh

truth: ## Compare what is reported of known threads with what the kernel counts and ftrace shows; needs root
	@scripts/truth.sh

lint: ## Formatting, clippy, documentation, shell scripts, licences, and the rules of the house
	@scripts/lint.sh

bpf: ## Rebuild the BPF objects with the pinned clang
	@scripts/bpf.sh
