# Two commands for users: `make demo` and `make test`. Both set up .venv first; nothing else has to be prepared.
#
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"   # a CPU build of torch: smaller

PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help demo test lint types unit test-long bench clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/.installed ## Four hospitals train under encryption, epsilon = 1 per patient (about 2 minutes)
	$(BIN)/flbc demo

test: lint types unit ## Everything that CI checks

lint: .venv/.installed ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed ## mypy --strict
	$(BIN)/mypy

unit: .venv/.installed ## pytest, warnings as errors, end-to-end runs included
	$(BIN)/pytest

test-long: .venv/.installed ## More examples per property test
	HYPOTHESIS_PROFILE=long $(BIN)/pytest

bench: .venv/.installed ## Benchmarks; each prints a table and checks its thresholds
	$(BIN)/python benchmarks/secure_sum.py
	$(BIN)/python benchmarks/heart.py

clean: ## Remove .venv and caches
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "flbc needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(PIP_ARGS) -c constraints.txt torch
	$(BIN)/pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[simulation,torch,phe,dev,bench]'
	@touch $@
