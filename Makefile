# A fresh machine needs python3 (3.11 or newer) and make; everything else is installed into .venv.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check bench clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/demo ## distil, prune, quantize and measure a small model, with all that it needs
	$(BIN)/compress run recipe=quickstart

# The tests of a file stay in one process, which makes what they share only once.
test: $(VENV)/dev ## run the tests, without those that are slow or need a GPU
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not gpu and not slow"

test-all: $(VENV)/dev ## run the slow tests too: everything that needs no GPU
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not gpu"

check: $(VENV)/dev ## lint, check the formatting, the types and the English
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python prose/check.py

bench: $(VENV)/demo ## measure the latency of the students that the demo made
	$(BIN)/compress bench runs/quickstart/*

clean: ## remove the environment and what the tools left; runs/ stays
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# An environment is made once, and again when what it is made from changes.
$(VENV)/demo: extras = demo
$(VENV)/dev: extras = demo,dev
$(VENV)/demo $(VENV)/dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing compress-encoders[$(extras)] into $(VENV) (a few minutes, once)"
	@$(PIP) install --constraint constraints.txt --editable '.[$(extras)]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "compress needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
