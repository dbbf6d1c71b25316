.DEFAULT_GOAL := help
.PHONY: help setup demo first-hour test lint ci release bench overload soak instances backlog model crash-points simulate planted schema examples page test-redis-matrix interop fuzz

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install redis-server where it is missing
	@scripts/install-redis

# The development profile: it builds in less than half the time of the release profile and shares everything with
# `make test`; the parts that would be slow without optimisation (RSA) are optimised in it, see Cargo.toml.
demo: setup ## The whole service at work on real parts, with its own Redis and a local Amazon Pay
	cargo run --locked -- demo

first-hour: setup ## Does what docs/FIRST-HOUR.md says, and compares what is printed
	cargo build --locked --bins --examples
	@scripts/first-hour

test: setup ## Every test, with private Redis servers
	cargo test --locked

# Without default features is what the production image holds; tests stand on the sandbox, so they are not built there.
lint: ## Formatting, clippy, documentation, contracts, alert rules, dependencies, scripts, Dockerfile, compose file, deploy/
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --lib --bins --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	@scripts/lint-files
	@scripts/check-contract
	@scripts/check-ops
	@scripts/check-deploy

ci: ## All that CI does: lint, test, examples, the first hour, the page in a browser, release build, shared checks
	$(MAKE) lint
	$(MAKE) test
	$(MAKE) examples
	$(MAKE) first-hour
	$(MAKE) page IMAGES=target/page
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 $(MAKE) release # what it does, not how fast: minutes less
	@for check in ../shared/checks/*; do \
		if [ -f "$$check" ] && [ -x "$$check" ]; then \
			echo "$$check"; "$$check" "$${CARGO_TARGET_DIR:-target}/release/amazon-pay-ipn" || exit 1; \
		fi; \
	done

schema: ## Write docs/api anew: JSON Schemas, AsyncAPI, OpenAPI
	cargo run --locked --quiet -- schema write docs/api

examples: setup ## The consumers of examples/ (Rust, Python, Node) on a stream that the service writes
	@scripts/run-examples

release:
	cargo build --release --locked

ROUNDS ?= 3
bench: setup ## What POST /ipn costs, beside what bounds it and what people write today (needs Node), in ROUNDS (3)
	cargo bench --locked --bench core
	cargo bench --locked --bench load -- speed "$(ROUNDS)"

MINUTES ?= 10
TIMES ?= 2
overload: setup ## TIMES (2) the load that the service can take, for MINUTES (10)
	cargo bench --locked --bench load -- overload "$(MINUTES)" "$(TIMES)"

SOAK ?= 45
soak: setup ## Mixed traffic with restarts, crashes and faults, for SOAK (45) minutes
	cargo bench --locked --bench load -- soak "$(SOAK)"

instances: setup ## One, two and three processes on one Redis, and one of them killed
	cargo bench --locked --bench load -- instances

# Not in `make ci`: 5,000 take some ten minutes, 100,000 some hours.
BACKLOG ?= 5000
backlog: setup ## A month's end of BACKLOG (5000) charges, drained by two instances without a 429
	BACKLOG="$(BACKLOG)" cargo test --locked --test it -- --ignored --nocapture a_months_end

# Not in `make ci`: larger bounds, three workers. `make test` explores the smaller ones.
model: setup ## The model of the protocol, within larger bounds
	cargo test --release --locked --test model -- --include-ignored --nocapture --test-threads 2

# Not in `make ci`: `make test` strikes each point in some kinds.
crash-points: setup ## The process struck at every named point, in every kind of work
	cargo test --locked --test crash -- --ignored --nocapture

SEEDS ?= 1000
simulate: setup ## Seeded simulation, SEEDS (1000) runs
	SEEDS="$(SEEDS)" cargo test --locked --profile simulate --test simulate

# Not in `make ci`: each of them is a build of its own.
planted: setup ## Does the simulation catch bugs that were planted by hand?
	@scripts/planted-bugs

# It needs Chromium (Debian's package), and fetches playwright-core from npm.
IMAGES ?= docs/images
page: setup ## Look at the operator page in headless Chromium; writes IMAGES (docs/images)
	@command -v $${CHROMIUM:-chromium} >/dev/null || apt-get install -y --no-install-recommends chromium
	npm --prefix scripts/browser ci --no-audit --no-fund --silent
	IMAGES="$(IMAGES)" cargo test --locked --test it -- --ignored --nocapture a_browser_shows

# Not in `make ci`: six runs of all integration tests.
test-redis-matrix: setup ## The integration stories on every kind of Redis
	@scripts/redis-matrix

# Not in `make ci`: it installs LocalStack from PyPI (about 370 MB, into target/).
interop: setup ## The service against an SNS that is not ours (LocalStack, from PyPI)
	cargo build --locked
	@scripts/interop

# Not in `make ci`: the first build takes some minutes.
SECONDS ?= 60
fuzz: ## Fuzz targets, for SECONDS (60) each
	@scripts/fuzz "$(SECONDS)"
