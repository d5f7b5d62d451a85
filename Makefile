# What CI runs is what you run: `make test`. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# A Python of your own choice: make venv PYTHON=python3.13
PYTHON ?=
# How long `make fuzz` looks.
SECONDS := 60
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
FUZZING := .tools/fuzz

REFERENCE := docs/reference/configuration.md

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header $(if $(UPGRADE),--upgrade)

.PHONY: help venv programs tools check fmt docs test fuzz proof bench demo lock wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

venv: $(STAMP) ## .venv with the locked packages and this tree

$(STAMP): requirements.lock requirements-dev.lock pyproject.toml
	@python="$(PYTHON)"; \
	new_enough() { "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }; \
	for candidate in python3 python3.13 python3.12 python3.11; do \
		if [ -z "$$python" ] && new_enough "$$candidate"; then python="$$candidate"; fi; \
	done; \
	if [ -z "$$python" ] || ! new_enough "$$python"; then \
		echo "make venv: needs Python 3.11 or newer, found $${python:-none}. On Debian: apt-get install python3 python3-venv" >&2; \
		exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip' 2>/dev/null; then \
		echo "make venv: $$python cannot make virtual environments. On Debian: apt-get install python3-venv" >&2; \
		exit 1; \
	fi; \
	"$(BIN)/python" -c 'import pip' 2>/dev/null || "$$python" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

programs: ## the real Prometheus, Alertmanager and Redis that the tests talk to
	@scripts/programs.sh prometheus prometheus-alertmanager redis-server

tools: ## optional: a current Alertmanager and amtool in .tools/bin, built with Go, and a browser for its pages
	@scripts/tools.sh

check: $(STAMP) ## lint, format, types, import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(STAMP) ## format and repair what can be repaired
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## write the generated reference anew
	$(BIN)/python -m proxy.config > $(REFERENCE).new
	@mv $(REFERENCE).new $(REFERENCE)

test: check programs ## checks first, tests next, coverage last
	$(BIN)/pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder --cov --cov-report=term -m "not proof and not live"

fuzz: $(FUZZING)/installed ## look for bodies that break the decoder's promises; SECONDS=600 takes longer
	cd $(FUZZING) && bin/python ../../tests/fuzz/decoder.py -max_total_time=$(SECONDS) -timeout=10 found ../../tests/fuzz/corpus

$(FUZZING)/installed: requirements-fuzz.lock $(STAMP)
	$(BIN)/python -m venv --clear $(FUZZING)
	$(FUZZING)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-fuzz.lock
	@mkdir -p $(FUZZING)/found
	@touch $@

proof: $(STAMP) programs ## the long proofs
	$(BIN)/pytest -m proof

bench: $(STAMP) programs ## figures for docs/explanation/performance.md, as ratios
	$(BIN)/python tests/bench/start.py
	$(BIN)/python tests/bench/decisions.py
	$(BIN)/python tests/bench/stores.py
	$(BIN)/python tests/bench/full_store.py
	$(BIN)/python tests/bench/verdicts.py
	$(BIN)/python tests/bench/batches.py
	$(BIN)/python tests/bench/connections.py

demo: $(STAMP) programs ## see it work; ONCE=1 ends by itself, MODEL=local asks a model
	$(BIN)/alertmanager-ai-proxy demo $(if $(ONCE),--once) $(if $(MODEL),--model=$(MODEL))

lock: $(STAMP) ## write the locks anew; UPGRADE=1 takes newer versions
	$(COMPILE) pyproject.toml -o requirements.lock
	$(COMPILE) pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	$(COMPILE) --group fuzz -o requirements-fuzz.lock

wheel: $(STAMP) ## dist/*.whl
	$(BIN)/hatchling build -t wheel -d dist

clean: ## remove what was built and measured; .venv and .tools stay
	rm -rf dist build .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find proxy tests -name __pycache__ -type d -prune -exec rm -rf {} +
