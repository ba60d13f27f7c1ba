# Everything lives in .venv; a fresh clone needs Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
RUN := .venv/.installed-run
DEV := .venv/.installed-dev
MANIFEST := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast check format bench docs lock clean

help: ## this list
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z%-]+):.*## /  make \1\t/' | expand -t 24

$(BIN)/python:
	$(PYTHON) -m venv .venv

# Two stamps: the demo does not need the developers' tools, and they include what the demo needs.
$(RUN): $(MANIFEST) | $(BIN)/python
	$(PIP) -e '.[torch,examples]'
	@touch $@

$(DEV): $(MANIFEST) | $(BIN)/python
	$(PIP) -e '.[torch,onnx,boost,http,image,text,examples,postgres,sign,docs,dev]'
	@touch $@ $(RUN)

demo: $(RUN) ## train, audit and report on four small models; exits 0 although the models fail
	$(BIN)/python examples/run_demo.py

test: $(DEV) ## the whole suite in random order; COV=1 adds coverage and its floor
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(if $(COV),--cov --cov-report=term) $(ARGS)

test-fast: $(DEV) ## the suite without the tests marked slow
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m 'not slow' $(ARGS)

check: $(DEV) ## format, lint, types, layers, docstrings, dependencies, doctests, docs: what CI checks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/interrogate src
	$(BIN)/deptry src
	$(BIN)/python -m pytest -q --doctest-modules --ignore-glob='*/migrations/*' src/casemate
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir .cache/site

format: $(DEV) ## rewrite the code in the house format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV) ## the short benchmarks behind docs/benchmarks.md
	$(BIN)/python benchmarks/run.py $(ARGS)

evidence-%: $(DEV) ## the long measurement of one room; writes docs/evidence/
	$(BIN)/python benchmarks/evidence_$*.py $(ARGS)

docs: $(DEV) ## serve the documentation on loopback
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

lock: $(DEV) ## write constraints.txt from what is installed in .venv
	$(BIN)/python scripts/lock.py > .cache-constraints && mv .cache-constraints constraints.txt
	@touch $(DEV) $(RUN)

clean: ## remove caches and build products; keeps .venv
	rm -rf .cache .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist site
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
