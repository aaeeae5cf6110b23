# make demo | test | lint | bench | docs
#
# Each target installs what it needs into $(VENV) first; a stamp file there is newer than pyproject.toml and constraints.txt once that
# is done, so that a second call starts at once. Variables: PYTHON, VENV, OUT (demo), DATA (bench), ARGS (test), PIP_ARGS.

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-out
DATA ?= ../shared/data
ARGS ?=
PIP_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt
INPUTS := pyproject.toml constraints.txt
BENCHMARKS = $(filter-out benchmarks/table.py,$(shell grep -l __main__ benchmarks/*.py))

.PHONY: demo test test-install lint bench docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/.cupel-base
	$(BIN)/cupel refine examples/data/ukp_votes.parquet --map group=topic --out $(OUT)

test: $(VENV)/.cupel-dev
	$(BIN)/python -m pytest -n 2 $(ARGS)

test-install: $(VENV)/.cupel-dev

lint: $(VENV)/.cupel-dev
	$(BIN)/ruff check src tests benchmarks examples docs
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/.cupel-dev
	set -e; for script in $(BENCHMARKS); do \
	  echo "== $$script"; \
	  if grep -q -- '"--data"' $$script; then $(BIN)/python $$script --data $(DATA); else $(BIN)/python $$script; fi; \
	done
	$(BIN)/python benchmarks/table.py

docs: $(VENV)/.cupel-docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf build dist docs/_build .pytest_cache .ruff_cache .hypothesis src/cupel.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.cupel-base: $(INPUTS) | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/.cupel-dev: $(INPUTS) | $(BIN)/python
	$(PIP) -e ".[dev,train]"
	@touch $@ $(VENV)/.cupel-base

$(VENV)/.cupel-docs: $(INPUTS) | $(BIN)/python
	$(PIP) -e ".[docs]"
	@touch $@ $(VENV)/.cupel-base
