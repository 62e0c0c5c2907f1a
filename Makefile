# What you can do here. `make help` lists it.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test torture node bench lint fmt tools test-tools

help: ## List these targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: tools ## Build, start a broker and two workers, compute pictures, read logs, kill a worker and the broker, lose nothing
	@deploy/demo.sh

# Lint comes last, so that a change that works and is badly formatted says both.
test: test-tools ## Run every test, then lint
	@# Process tests start the binaries.
	cargo build --locked --workspace --bins --examples
	@if cargo nextest --version >/dev/null 2>&1; then set -x; \
	  cargo nextest run --locked --workspace && cargo test --locked --workspace --doc; \
	else set -x; \
	  cargo test --locked --workspace; \
	fi
	@$(MAKE) --no-print-directory lint

# Prints what it did and what became of it.
torture: test-tools ## Kill, stop and cut off brokers, workers and callers, 3,200 times in all; block a handler for 40 s; fail a sync 100 times; run 200,000 seeds of the simulator
	cargo build --locked --workspace --bins
	ASYNQ_SIM_SEEDS=200000 cargo test --locked -p asynq-tests --test sim tiers::seeds_are_clean -- --exact --nocapture
	ASYNQ_TORTURE=1 cargo test --locked -p asynq-tests --test it kill:: -- --nocapture --test-threads 1
	ASYNQ_TORTURE=1 cargo test --locked -p asynq-tests --test it stuck:: -- --nocapture
	ASYNQ_TORTURE=1 cargo test --locked -p asynq-tests --test it disk::after_a_failed_sync -- --nocapture
	ASYNQ_TORTURE=1 cargo test --locked -p asynq-tests --test it torture:: -- --nocapture --test-threads 1 --skip a_million
	@# What ships: its times are judged.
	cargo build --locked --release --workspace --bins
	ASYNQ_TORTURE=1 cargo test --locked --release -p asynq-tests --test it torture::explain::with_a_million -- --nocapture

node: tools ## Join a worker from another network namespace, with certificates (needs iproute2)
	cargo build --locked --workspace --bins
	@tests/node.sh

bench: tools ## Measure throughput, latency and CPU beside plain gRPC, and Redis if it is there (ROUNDS=7, ONLY=items)
	cargo build --locked --release --workspace --bins
	cargo bench --locked -p asynq-tests --bench speed -- $(ROUNDS) $(ONLY)

# A bare toolchain may lack rustfmt and clippy: the tests do not need them.
lint: ## Check format and lints, where rustfmt and clippy are installed
	@if cargo fmt --version >/dev/null 2>&1; then set -x; cargo fmt --all --check; \
	else echo "lint: rustfmt is not installed, format not checked (rustup component add rustfmt)" >&2; fi
	@if cargo clippy --version >/dev/null 2>&1; then set -x; cargo clippy --locked --workspace --all-targets -- -D warnings; \
	else echo "lint: clippy is not installed, lints not checked (rustup component add clippy)" >&2; fi

fmt: ## Format the code
	cargo fmt --all

# Rust and a C compiler are all that is needed: SQLite and the allocator are C and compiled in.
tools:
	@command -v cargo >/dev/null || { \
	  echo "make: cargo is missing. Install Rust with: curl -sSf https://sh.rustup.rs | sh" >&2; exit 1; }
	@works() { echo 'int main(void) { return 0; }' | cc -x c -o /dev/null - 2>/dev/null; }; \
	works || { \
	  install='apt-get update && apt-get install -y gcc libc6-dev'; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "make: no working C compiler, installing one: $$install"; sh -c "$$install" && works; \
	  else \
	    echo "make: no working C compiler. Install one with: sudo sh -c '$$install'" >&2; exit 1; \
	  fi; }

# Programs that tests start besides our own, as program:package.
# nginx by its path: where it is, only root looks.
TEST_PROGRAMS := /usr/sbin/nginx:nginx-light python3:python3 systemd-analyze:systemd curl:curl \
  strace:strace unshare:util-linux mount:mount /usr/sbin/mkfs.ext4:e2fsprogs
# Modules of Python that tests use, and their packages. The tests, too, take the
# Python that is found first if it has them, else the system's.
TEST_MODULES := grpc, google.protobuf
TEST_MODULE_PACKAGES := python3-grpcio python3-protobuf

test-tools: tools
	@packages=; for pair in $(TEST_PROGRAMS); do \
	  command -v "$${pair%%:*}" >/dev/null || packages="$$packages $${pair##*:}"; \
	done; \
	has_modules() { \
	  for python in python3 /usr/bin/python3; do "$$python" -c 'import $(TEST_MODULES)' 2>/dev/null && return; done; \
	  return 1; \
	}; \
	has_modules || packages="$$packages $(TEST_MODULE_PACKAGES)"; \
	if [ -n "$$packages" ]; then \
	  install="apt-get update && apt-get install -y --no-install-recommends$$packages"; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "make: the tests need$$packages, installing: $$install"; sh -c "$$install"; \
	  else \
	    echo "make: the tests need$$packages. Install with: sudo sh -c '$$install'" >&2; exit 1; \
	  fi; \
	fi
