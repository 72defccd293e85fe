# Everything here makes .venv when it is missing and renews it when pyproject.toml or constraints.txt change.
#
#   make demo                          tune the demo corpus with five strategies and compare them
#   make test                          the tests (make slow, make stress: the long ones)
#   make PYTHON=python3.12 setup       another Python, 3.11 or newer
#   make TORCH_INDEX=<url> setup       take torch from another index: PyTorch's CPU wheel index (see pytorch.org,
#                                      "Get Started") saves some GB on a Linux machine without a GPU

PYTHON ?= python3
TORCH_INDEX ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CHECKED := lora_clf $(wildcard benchmarks docs/*.py)

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow stress lint format clean

help:  ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP)  ## make .venv with the tested versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "lora-clf needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 setup"; exit 1; }
	@# A half-made environment (no pip in it) is made anew.
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --index-url $(TORCH_INDEX) -c constraints.txt torch)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,parquet]'
	@touch $@

demo: $(STAMP)  ## tune the demo corpus with five strategies, print the table, save adapters and report
	$(BIN)/lora-clf compare demo --seeds 1 --out demo-output --save-adapters

test: $(STAMP)  ## run the tests
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

slow: $(STAMP)  ## run the slow tests
	$(BIN)/python -m pytest -m slow

stress: $(STAMP)  ## run the stress tests
	STRESS_RESULTS=benchmarks/results/stress.json $(BIN)/python -m pytest -m "not slow" tests/stress

lint: $(STAMP)  ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(CHECKED)

format: $(STAMP)  ## put the code into the house's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what was made here, .venv too
	rm -rf $(VENV) build dist *.egg-info demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
