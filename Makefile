# The targets that build first run scripts/setup, which installs what is missing and otherwise only looks.

CARGO ?= cargo
DEMO := runs/demo
# Left in the demo's folder: only a folder that a demo made is ever removed.
DEMO_MARK := $(DEMO)/.made-by-make-demo

# Where cargo puts the binary.
ENGINE := $(or $(CARGO_TARGET_DIR),target)/release/verlet
# What `make validate` judges and `make bench-peers` times: make validate BACKEND=cuda.
BACKEND ?= cpu

export VERLET_TEST_PYTHON ?= $(CURDIR)/.tools/test-venv/bin/python

.PHONY: help setup setup-tests build demo test check validate bench-peers docs clean

help:
	@echo 'make demo     build the engine and run a short simulation of ethanol into $(DEMO)'
	@echo 'make build    build the engine: target/release/verlet'
	@echo 'make test     run every test'
	@echo 'make check    formatting, lints and documentation, with warnings as errors'
	@echo 'make validate judge the physics of the engine and write a dated page into validation/results'
	@echo 'make bench-peers  time the engine and SchNetPack side by side'
	@echo 'make docs     the user guide as web pages: target/guide/index.html'
	@echo 'make setup    install what the build needs (the targets above do this first)'
	@echo 'make clean    remove what was built (CMake and the Python environment in .tools stay)'

setup:
	@scripts/setup

setup-tests:
	@scripts/setup --tests

build: setup
	$(CARGO) build --release

demo: build
	@if [ -e $(DEMO_MARK) ]; then rm -rf $(DEMO); fi
	@if [ -e $(DEMO) ]; then \
	    echo 'make demo: $(DEMO) was not made by a demo: move it away, then run this again.' >&2; exit 1; fi
	@# An interrupted demo leaves its mark as well.
	@trap : INT; $(CARGO) run --release -- run inputs/ethanol.toml --output $(DEMO); status=$$?; \
	if [ -d $(DEMO) ]; then touch $(DEMO_MARK); fi; exit $$status

test: setup-tests
	$(CARGO) test --workspace

check: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps

validate: build
	@scripts/setup --validation
	.tools/validation-venv/bin/python validation/validate.py --engine $(ENGINE) --backend $(BACKEND)

bench-peers: build
	@scripts/setup --peers
	.tools/peers-venv/bin/python validation/peers/compare.py --engine $(ENGINE) --device $(BACKEND)

docs:
	@scripts/setup --docs
	.tools/bin/mdbook build docs

clean:
	$(CARGO) clean
