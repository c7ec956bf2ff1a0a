# Two commands on a fresh machine: `make demo` and `make test`. Everything is installed into .venv, from the lock.
# Variables: ONCE=1 and PORT=N (demo), ARGS="..." (pytest), JOBS=N (test processes), CDS_SKIP_PEERS=postgres,chromium,data.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
IS_311 := -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'
# The distribution's own interpreter first: it is built with profile-guided optimisation, one built by hand often is not,
# and is slower by a half. Of several, one that can make a virtual environment.
PYTHON ?= $(shell for able in 'import ensurepip, venv' 'pass'; do for p in /usr/bin/python3.11 python3.11 python3; do \
	$$p $(IS_311) 2>/dev/null && $$p -c "$$able" 2>/dev/null && { echo $$p; exit; }; done; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
	--custom-compile-command "make lock" --quiet $(UPGRADE)

.PHONY: help demo test lint peers bench models models-report lock clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*##/\1\t/' | expand -t 16

demo: $(VENV)/.app  ## install, land the fixtures, start server and sandbox (ONCE=1: call the hooks, print, exit)
	@$(BIN)/cds demo $(if $(ONCE),--once) $(if $(PORT),--port $(PORT))

test: lint peers  ## lint, types, contracts and every test, against real peers
	@CDS_SKIP_PEERS="$(CDS_SKIP_PEERS)" $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: $(VENV)/.test  ## style, format, types, the contracts of the house
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

peers: $(VENV)/.test $(VENV)/peers/.stamp  ## the real peers that the tests need: Debian packages, installed where you are root
	@CDS_SKIP_PEERS="$(CDS_SKIP_PEERS)" $(BIN)/python -m tests.peers

bench: $(VENV)/.test  ## every script in benchmarks/, each ending in one JSON line per figure
	@failed=0; for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python "$$script" || failed=1; done; exit $$failed

models: $(VENV)/.training  ## build the shipped model artifacts again, from their sources
	@$(BIN)/python -m models.training

models-report: $(VENV)/.training  ## validate the fused model again: docs/models/report.html and validation.json
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m models.training.report

lock: $(BIN)/python  ## resolve requirements/*.txt again (UPGRADE=--upgrade: to the newest that pyproject.toml allows)
	@$(PIP) 'uv>=0.9,<1'
	@$(COMPILE) requirements/build.in --output-file requirements/build.txt >/dev/null
	@$(COMPILE) pyproject.toml --output-file requirements/app.txt >/dev/null
	@$(COMPILE) pyproject.toml --constraints requirements/app.txt --extra radiomics \
		--output-file requirements/radiomics.txt >/dev/null
	@$(COMPILE) pyproject.toml --constraints requirements/app.txt --extra anchor \
		--output-file requirements/anchor.txt >/dev/null
	@$(COMPILE) pyproject.toml --constraints requirements/app.txt --extra training \
		--output-file requirements/training.txt >/dev/null
	@$(COMPILE) pyproject.toml --constraints requirements/training.txt --extra training --extra anchor --extra test \
		--output-file requirements/test.txt >/dev/null
	@$(COMPILE) requirements/peers.in --output-file requirements/peers.txt >/dev/null

clean:  ## remove what was built; data in var/ stays
	@rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# ---- the environment: a stamp per lock file, so that nothing is installed twice ------------------------------------------

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then echo "make: no Python 3.11 found; install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; fi
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends python3.11-venv; \
		else echo "make: this Python can't make a virtual environment; as root: apt-get install python3.11-venv" >&2; exit 2; fi; fi
	@echo "make: creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.app: requirements/build.txt requirements/app.txt pyproject.toml | $(BIN)/python
	@echo "make: installing the server from requirements/app.txt"
	@$(PIP) --require-hashes -r requirements/build.txt -r requirements/app.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test $(VENV)/.training: $(VENV)/.%: requirements/%.txt $(VENV)/.app
	@echo "make: installing from $<"
	@$(PIP) --require-hashes -r $<
	@touch $@

$(VENV)/peers/.stamp: requirements/peers.txt | $(BIN)/python
	@echo "make: installing other people's servers from $<, in an environment of their own"
	@$(PYTHON) -m venv $(VENV)/peers
	@$(VENV)/peers/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $<
	@touch $@
