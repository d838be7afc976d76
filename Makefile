# Everything a person or CI runs. `make` alone lists it.
SHELL := /bin/bash
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.DEFAULT_GOAL := help
.PHONY: help demo test check fix docs drill bench clean lock

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: .venv/demo.stamp ## Six plants learn together: real processes over mutual TLS, about a minute
	@$(BIN)/reuna demo

test: .venv/dev.stamp ## The whole test suite
	@$(BIN)/python -m pytest -n 2 --dist worksteal

check: .venv/dev.stamp ## Lint, format, types, floors, docs: what CI runs before the tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/mkdocs build -q --strict

fix: .venv/dev.stamp ## Format and repair what can be repaired
	@$(BIN)/ruff check --fix -q . || true
	@$(BIN)/ruff format -q .

docs: .venv/dev.stamp ## Build the documentation into site/
	@$(BIN)/mkdocs build -q --strict && echo "site/index.html"

drill: .venv/demo.stamp ## A scenario that proves a promise: make drill NAME=kill
	@$(BIN)/python -m drills.$(or $(NAME),kill)

bench: .venv/demo.stamp ## The cost of a round, at 10 k and 1 M parameters
	@$(BIN)/python -m benchmarks.round --params 10000 --nodes 8 --rounds 30 --idle --json
	@$(BIN)/python -m benchmarks.round --params 1000000 --nodes 8 --rounds 20 --json
	@$(BIN)/python -m benchmarks.simulate --clients 1000 --json

lock: ## Write the lock files again from pyproject.toml (needs uv)
	@uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --no-emit-find-links --extra demo -o requirements.lock pyproject.toml
	@uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --no-emit-find-links --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml

clean: ## Remove everything that make made
	@rm -rf .venv site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "error: no Python >= 3.11 found; install one and run make again" >&2; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/demo.stamp: requirements.lock pyproject.toml | .venv/bin/python
	@echo "installing from requirements.lock (once, about a minute)" >&2
	@$(PIP) install --require-hashes --no-deps -r requirements.lock 2>&1 | grep -v 'is ignored' >&2 || true
	@$(PIP) install hatchling editables 2>&1 | grep -v 'is ignored' >&2 || true
	@$(PIP) install --no-deps --no-build-isolation -e . 2>&1 | grep -v 'is ignored' >&2 || true
	@$(BIN)/python -c 'import reuna.cli' && touch $@

.venv/dev.stamp: requirements-dev.lock .venv/demo.stamp
	@echo "installing from requirements-dev.lock (once, about a minute)" >&2
	@$(PIP) install --require-hashes --no-deps -r requirements-dev.lock 2>&1 | grep -v 'is ignored' >&2 || true
	@$(BIN)/python -c 'import pytest, hypothesis' && touch $@
