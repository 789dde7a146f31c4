# The few things to type here; `make` alone lists them. What they build goes to CARGO_TARGET_DIR, by default
# ~/.cache/schedtrace/target.

.DEFAULT_GOAL := help
.PHONY: help demo test vm-test kernels truth kills mistakes endurance builds bench lint bpf fixture

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Record this machine for five seconds, and report why tasks waited
	@scripts/demo.sh

test: ## Run every test; as root, those on the running kernel too
	@scripts/test.sh

vm-test: ## Boot KERNEL (the newest in ../shared/kernel) in an emulator with CPUS (8) CPUs, and run the live tests there
	@KERNEL="$(KERNEL)" CPUS="$(CPUS)" MODULES="$(MODULES)" scripts/vm-test.sh

kernels: ## Try this kernel, the test kernel and Debian's in turn, and write docs/kernels.md
	@scripts/kernels.sh

truth: ## Print what is reported beside what the kernel and ftrace say of the same threads, and the books of starved recorders
	@scripts/truth.sh

lint: ## Formatting, clippy, documentation, shell scripts, licences, and the rules of the house
	@scripts/lint.sh

bpf: ## Rebuild the BPF objects with the pinned clang
	@scripts/bpf.sh

fixture: ## Record anew, on the test kernel, the trace that tests replay
	@scripts/fixture.sh

kills: ## Kill 50 recorders at random moments, and print what was found of each
	@scripts/kills.sh

mistakes: ## Put known mistakes back, one by one, and see the test that guards against each fail
	@scripts/mistakes.sh

endurance: ## Record for MINUTES (20) at the highest rate, and print how much memory and disk that took
	@scripts/endurance.sh $(MINUTES)

bench: ## Measure what everything costs, here and beside other tracers, and write docs/performance.md
	@scripts/bench.sh

builds: ## Build the library, the command and the wheel from nothing, and print what each takes
	@scripts/builds.sh
