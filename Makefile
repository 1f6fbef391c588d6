# `make` lists the targets. Everything lives in .venv and target/: nothing else is touched.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
BIN := .venv/bin
WHEELS := target/dist/wheel
SDIST := target/dist/sdist
PYTEST_ARGS ?= -n auto --dist worksteal
CRASH_STATES ?= 200

export CARGO_TERM_COLOR ?= auto
export PIP_DISABLE_PIP_VERSION_CHECK := 1

TOOLS := .venv/.tools-installed
WHEEL := $(WHEELS)/.built
INSTALLED := .venv/.wheel-installed
SOURCES := Cargo.toml Cargo.lock pyproject.toml README.md LICENSE \
	$(shell find src -name '*.rs') $(shell find python -name '*.py' -o -name '*.pyi' -o -name py.typed)

.PHONY: help
help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-13s %s\n", $$1, $$2 }' Makefile

# --- What everything else needs ---

$(TOOLS): requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "atomik needs Python 3.11 or later: make PYTHON=python3.x")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	touch $@

# Linked with zig against glibc 2.17, whatever the machine has: the wheel that is tested is the one to publish.
# With the shared libgcc_s, not zig's own unwinder: CPython before 3.14 ends threads that outlive the interpreter
# with pthread_exit(3), which unwinds by libgcc_s, and two unwinders in one stack end in a segmentation fault.
$(WHEEL): $(SOURCES) | $(TOOLS)
	rm -rf $(WHEELS)
	RUSTFLAGS="-C link-arg=$$(cc -print-file-name=libgcc_s.so.1)" PATH="$(CURDIR)/$(BIN):$$PATH" \
		$(BIN)/maturin build --release --locked --quiet --zig --compatibility manylinux2014 \
		--interpreter $(BIN)/python --out $(WHEELS)
	touch $@

$(INSTALLED): $(WHEEL) $(TOOLS)
	$(BIN)/python -m pip install --quiet --no-deps --no-index --force-reinstall $(WHEELS)/*.whl
	touch $@

.PHONY: setup
setup: $(TOOLS) ## make .venv with the pinned tools

.PHONY: lock
lock: | $(TOOLS) ## pin the newest tools, and what they need, with hashes
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --no-strip-extras \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
		--output-file requirements-dev.txt requirements-dev.in
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --no-strip-extras \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
		--output-file requirements-peers.txt requirements-peers.in
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --no-strip-extras \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
		--output-file requirements-bench.txt requirements-bench.in

# --- Use ---

.PHONY: wheel
wheel: $(INSTALLED) ## build the wheel once and install it in .venv
	@ls $(WHEELS)/*.whl

.PHONY: demo
demo: $(INSTALLED) ## publish this Python's standard library while others read it
	$(BIN)/python examples/demo.py

# What is installed for comparison stays out of .venv: it brings an `atomik` of its own.
PEERS := target/peers
$(PEERS)/.installed: requirements-peers.txt | $(TOOLS)
	rm -rf $(PEERS)
	$(BIN)/python -m pip install --quiet --require-hashes --target $(PEERS) -r $<
	touch $@

# An environment of its own for the libraries that atomik is compared with, and for what draws the pictures.
BENCH := target/bench
$(BENCH)/.installed: requirements-bench.txt | $(TOOLS)
	$(BIN)/python -m venv --clear $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --require-hashes -r $<
	touch $@

# A series takes hours. `make bench BENCH_RUNS=1` adds one run to it, and BENCH_PAUSE says how many minutes lie between two.
# With BENCH_ARGS (--quick, --section files, --filesystem ext4) one run is made for development, in target/ only.
BENCH_ARGS ?=
BENCH_RUNS ?=
BENCH_PAUSE ?= 60
BENCH_PATH := PYTHONPATH=tests/python
BENCH_WITH := --bare target/release/examples/bare --peers $(BENCH) --first $(PEERS)
.PHONY: bench
bench: $(INSTALLED) $(BENCH)/.installed $(PEERS)/.installed ## compare with system calls and other libraries, as root, for hours; BENCH_ARGS=--quick tries in a minute
	cargo build --release --locked --quiet --example bare --target-dir target
ifneq ($(BENCH_ARGS),)
	$(BENCH_PATH) $(BIN)/python benches/compare.py $(BENCH_WITH) --csv target/speed/try.csv $(BENCH_ARGS)
	$(BENCH_PATH) $(BIN)/python benches/page.py --development target/speed/try.csv
else
	mkdir -p docs/speed
	$(BENCH_PATH) $(BIN)/python benches/repeat.py target/speed docs/speed \
		$(if $(BENCH_RUNS),--runs $(BENCH_RUNS)) --pause $(BENCH_PAUSE) -- $(BENCH_WITH)
	$(BENCH_PATH) $(BENCH)/bin/python benches/picture.py docs/speed/series.csv docs/speed
	$(BENCH_PATH) $(BIN)/python benches/page.py docs/speed/series.csv docs/speed.md
endif

.PHONY: bench-rust
bench-rust: ## time commits from Rust, in TMPDIR
	cargo bench --locked --bench commit

# --- Test ---

.PHONY: test
test: test-rust test-python test-threads test-crash ## run all tests, Python's against the built wheel

# `cargo test` alone tries a sample of the failing calls.
.PHONY: test-rust
test-rust: export ATOMIK_FAULTS := all
test-rust: ## run the Rust tests, with every failing call, and the documentation's examples
	if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --locked; else cargo test --locked --lib --tests; fi
	cargo test --locked --doc

.PHONY: test-python
test-python: $(INSTALLED) ## run the Python tests; PYTEST_ARGS="-k name -x" chooses
	$(BIN)/pytest $(PYTEST_ARGS)

.PHONY: test-threads
test-threads: $(INSTALLED) ## run the tests of threads, each in eight threads at once
	$(BIN)/pytest --parallel-threads=8 tests/python/test_threads.py

.PHONY: test-crash
test-crash: $(INSTALLED) ## cut the power, kill, fill disks, inject errors: what CI runs of it
	$(BIN)/pytest $(PYTEST_ARGS) -m "not slow" tests/crash

.PHONY: test-field
test-field: $(INSTALLED) ## run the tests that keep what users have met
	PYTEST_ARGS="$(PYTEST_ARGS)" $(BIN)/python tests/field.py

# With -s: what the guests say is seen while they run.
.PHONY: test-guest
test-guest: $(INSTALLED) ## boot older kernels in QEMU: NFS, CIFS, exfat, vfat, f2fs, and the Python tests; as root, an hour
	$(BIN)/pytest -s -p no:randomly -m slow tests/guest/test_guest.py

.PHONY: test-guest-ci
test-guest-ci: $(INSTALLED) ## what CI runs of it, ten minutes
	$(BIN)/pytest -s -p no:randomly -m "not slow" tests/guest/test_guest.py

.PHONY: guest-facts
guest-facts: $(TOOLS) ## measure, by bare calls, what shared folders do; GUEST_KERNEL=6.1
	tests/guest/guest.py --seconds 1200 -- env PYTHONPATH=tests/python $(BIN)/python tests/guest/inside/facts.py

.PHONY: crash
crash: $(INSTALLED) $(PEERS)/.installed ## all of it, hours long, with other libraries side by side; CRASH_STATES=200
	$(BIN)/pytest $(PYTEST_ARGS) --timeout=0 tests/crash
	PYTHONPATH=tests/python:tests/crash $(BIN)/python -m powercut --states $(CRASH_STATES) --neighbour both \
		--json target/powercut.json
	ATOMIK_SINGLE_FLUSH=0 PYTHONPATH=tests/python:tests/crash $(BIN)/python -m powercut --states $(CRASH_STATES) \
		--neighbour both --filesystem 'ext4*,xfs' --json target/powercut-two-flushes.json
	ATOMIK_PEERS=$(PEERS) PYTHONPATH=tests/python:tests/crash $(BIN)/python -m powercut --states $(CRASH_STATES) --peers \
		--workload 'peer-*' --json target/powercut-peers.json
	ATOMIK_FUZZ_SECONDS=600 $(BIN)/pytest -s tests/crash/fuzz -k documented

EXPLORE_ARGS ?=
.PHONY: explore
explore: ## explore interleavings of the core, an hour or two; EXPLORE_ARGS='random "Folder: Folder Reader"' EXPLORE_SECONDS=10
	tools/explore $(EXPLORE_ARGS)

.PHONY: explore-ci
explore-ci: ## the same for two minutes, with a fresh seed
	tools/explore ci

.PHONY: coverage
coverage: $(TOOLS) ## measure the line coverage of both languages
	tools/coverage.sh $(PYTEST_ARGS)

# --- Check ---

.PHONY: lint
lint: lint-rust lint-python lint-types ## check formats, lints, types and the stub

.PHONY: lint-rust
lint-rust: ## rustfmt, clippy, rustdoc, no pyo3 without the feature, and no circle of modules
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --all-features --document-private-items
	! cargo tree --locked -e normal | grep pyo3
	$(PYTHON) tools/circles.py

.PHONY: lint-python
lint-python: $(TOOLS) ## ruff
	$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: lint-types
lint-types: $(INSTALLED) ## mypy, basedpyright, stubtest, and the stub's docstrings are the module's
	$(BIN)/mypy
	$(BIN)/basedpyright
	PATH="$(CURDIR)/$(BIN):$$PATH" basedpyright --verifytypes atomik --ignoreexternal # looks where `python` looks
	$(BIN)/python tools/stubs.py --check
	$(BIN)/stubtest --allowlist tools/stubtest.txt --ignore-unused-allowlist atomik

.PHONY: format
format: $(TOOLS) ## format the code of both languages
	cargo fmt
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: stubs
stubs: $(INSTALLED) ## write the Rust items' docstrings into the stub
	$(BIN)/python tools/stubs.py

.PHONY: docs
docs: $(TOOLS) ## build the documentation in target/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# --- Package ---

.PHONY: package
package: $(WHEEL) ## build wheel, sdist and crate; install and try each in a new environment
	$(BIN)/python tools/check_wheel.py $(WHEELS)/*.whl
	rm -rf $(SDIST) target/smoke
	$(BIN)/maturin sdist --out $(SDIST)
	for package in $(WHEELS)/*.whl $(SDIST)/*.tar.gz; do \
		$(PYTHON) -m venv --clear target/smoke; \
		CARGO_TARGET_DIR="$(CURDIR)/target" target/smoke/bin/python -m pip install --quiet "$$package"; \
		(cd / && "$(CURDIR)/target/smoke/bin/python" -I "$(CURDIR)/tests/smoke.py" "$$(basename "$$package")"); \
	done
	cargo package --locked --allow-dirty --quiet
	@ls -l $(WHEELS)/*.whl $(SDIST)/*.tar.gz target/package/*.crate

.PHONY: ci
ci: ## everything that CI does, system packages included
	.ci/run

.PHONY: clean
clean: ## remove all that was built
	rm -rf target .venv .coverage* .hypothesis .pytest_cache .mypy_cache .ruff_cache
