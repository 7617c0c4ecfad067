# `make help` lists the targets. Each sets up what it needs in .venv by itself and needs Python 3.11 or later.

# The torch build. The default takes what your package index offers for this platform: on Linux that is usually the CUDA
# build, several gigabytes. Any arguments of `pip install` are fine, so a CPU build needs only the index address that
# pytorch.org gives for it:   make demo TORCH_SPEC="torch==2.13.0 --index-url ADDRESS"
TORCH_SPEC ?= torch==2.13.0
# The interpreter that creates .venv; by default the first one found that is new enough.
PYTHON ?=
# Arguments for `esamp demo`, `python -m esamp.models.train` and pytest: make test ARGS="-k bank"
ARGS ?=
# Processes that run the tests: one per core, at most 8.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 1); [ $$n -gt 8 ] && n=8; echo $$n)

# Set it to measure which lines the tests of `make test-all` run; they take about twice as long then.
COVERAGE ?=

BIN := .venv/bin
PYTEST = $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder
SOURCES := $(wildcard src tests scripts hub)

export TORCH_SPEC PYTHON
export TORCHINDUCTOR_CACHE_DIR := $(CURDIR)/.cache/inductor
# Tests start hundreds of processes, each of which would compile our modules again without their cached bytecode.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo docs test test-all model format format-check lint types tests tests-slow setup setup-demo setup-test browser clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

demo: setup-demo ## compare plain sampling and ESamp on a small chat model; writes demo.html
	@$(BIN)/esamp demo $(ARGS)
	@echo 'The command lives in the environment: $(BIN)/esamp --help, or activate it: . $(BIN)/activate' >&2

docs: setup-test ## build the documentation site into build/site
	@$(BIN)/zensical build --strict

test: format-check lint types browser tests ## format, linter, types and all tests but the slow ones
test-all: test tests-slow ## the slow tests as well: every server, long runs, whole commands; with COVERAGE=1 what they cover

model: setup ## train the embedded model again, into build/model
	@$(BIN)/python -m esamp.models.train --out build/model $(ARGS)

setup: ## install the package into .venv
	@scripts/setup.sh

setup-demo:
	@scripts/setup.sh demo

setup-test:
	@scripts/setup.sh test

format: setup-test ## format the code and apply the linter's safe fixes
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

format-check: setup-test
	@echo "== format"
	@$(BIN)/ruff format --check $(SOURCES)

lint: setup-test ## run the linter
	@echo "== lint"
	@$(BIN)/ruff check $(SOURCES)

types: setup-test ## run the type checker
	@echo "== types"
	@$(BIN)/mypy

browser:
	@scripts/browser.sh

tests: setup-test ## run the tests alone, or some of them: make tests ARGS="-k bank"
	@echo "== tests"
	@$(PYTEST) $(or $(ARGS),-m "not slow" $(if $(COVERAGE),--cov --cov-report= --cov-fail-under=0))

tests-slow: setup-test
	@echo "== slow tests"
	@$(PYTEST) -m slow $(if $(COVERAGE),--cov --cov-append --cov-report=term)

clean: ## remove everything that was built here
	rm -rf .venv .cache .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist demo.html
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
