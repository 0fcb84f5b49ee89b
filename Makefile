PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
SPARK = $(VENV)/.spark
WORKERS ?= 3
SHARDS ?= 2
LONG = MA_ROBUSTNESS_RESULTS=$(abspath build/robustness.jsonl) $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup demo up test robustness lint proto lock bench

help:  ## show these targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## install everything into .venv

$(STAMP): requirements.lock setup.cfg
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$$(sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements.lock)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	touch $@

demo: setup  ## from nothing to a deployed model that answers; ARGS=--exit stops after it
	@$(BIN)/ma demo $(ARGS)

up: setup  ## start the platform and stay until Ctrl-C
	@$(BIN)/ma up $(ARGS)

$(SPARK): $(STAMP) requirements-spark.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --no-deps -r requirements-spark.lock
	@# On a fresh machine gigabytes may still be on their way to the disk: a test's own write would wait for them.
	sync
	touch $@

test: $(SPARK)  ## every test, three files at a time; ARGS selects, for example ARGS=tests/api
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder $(ARGS)

robustness: $(SPARK)  ## the long lane of the fault tests, two files at a time; ARGS selects
	mkdir -p build; failed=; \
	$(LONG) -m "(robustness or both) and not alone" -n $(SHARDS) --dist loadfile $(ARGS) || [ $$? = 5 ] || failed=1; \
	$(LONG) -m "robustness and alone" $(ARGS) || [ $$? = 5 ] || failed=1; \
	[ -z "$$failed" ]
	$(BIN)/python -m tests.robustness.results build/robustness.jsonl > build/robustness.md
	mv build/robustness.md docs/robustness.md

lint: setup  ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg

proto: setup  ## regenerate api/gen from proto/
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python proto/generate.py

lock: setup  ## resolve setup.cfg again into requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --python-version 3.11 --extra dev --output-file requirements.lock setup.cfg requirements.in

bench: setup  ## the figures of the README, with their peers
	$(BIN)/python -m benchmarks
