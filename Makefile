# Two commands for users: `make demo` and `make test`. Both set up .venv first; nothing else has to be prepared.
#
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"   # a CPU build of torch: smaller

PYTHON ?= python3
PIP_ARGS ?=
SLITHER := 0.11.6
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help demo test lint types unit tools test-long bench clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/.installed ## Four hospitals train under encryption, epsilon = 1 per patient; every round on a chain, then audited
	$(BIN)/flbc demo

test: lint types unit ## Everything that CI checks

lint: .venv/.installed ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed ## mypy --strict
	$(BIN)/mypy

unit: .venv/.installed tools ## pytest, warnings as errors; then end-to-end runs, one at a time
	$(BIN)/pytest -q -n auto --dist loadfile -m "not e2e"
	$(BIN)/pytest -q -m e2e

test-long: .venv/.installed tools ## More examples per property test
	HYPOTHESIS_PROFILE=long FOUNDRY_PROFILE=long $(BIN)/pytest

tools: contracts/.slither/.installed ## Node packages (forge, Anvil, Ganache, solc), if node is there, and slither
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory contracts/node_modules/.package-lock.json; else \
		echo "node is not installed: tests that need forge, Anvil, Ganache or solc are skipped, and say so"; fi

contracts/node_modules/.package-lock.json: contracts/package-lock.json
	cd contracts && npm ci --loglevel=error
	@touch $@

# slither needs web3 7, flbc web3 8: it gets a venv of its own.
contracts/.slither/.installed:
	$(PYTHON) -m venv contracts/.slither
	contracts/.slither/bin/pip install --quiet $(PIP_ARGS) slither-analyzer==$(SLITHER)
	@touch $@

bench: .venv/.installed ## Benchmarks; each prints a table and checks its thresholds
	$(BIN)/python benchmarks/secure_sum.py
	$(BIN)/python benchmarks/heart.py
	$(BIN)/python benchmarks/nddfe.py
	$(BIN)/python benchmarks/dgc.py
	$(BIN)/python benchmarks/masking.py
	$(BIN)/python benchmarks/masked_rounds.py
	$(BIN)/python benchmarks/round_overhead.py --quick
	$(BIN)/python benchmarks/paillier_opening.py --quick
	$(BIN)/python benchmarks/attacks.py --quick
	$(BIN)/python benchmarks/dp_accuracy.py --quick
	$(BIN)/python benchmarks/verification.py
	$(BIN)/python benchmarks/relay.py
	$(BIN)/python benchmarks/poisoning.py --quick

clean: ## Remove .venv and caches
	rm -rf .venv contracts/node_modules contracts/.slither contracts/out contracts/cache .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "flbc needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(PIP_ARGS) -c constraints.txt torch
	$(BIN)/pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[simulation,torch,demo,phe,dkg,dev,bench]'
	@touch $@
