# Every target does its own set-up into .venv; the second time costs nothing.
.DEFAULT_GOAL := help
.PHONY: help setup run test lint bench zoo clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

help:  ## Say what can be made
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Convscope needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version): set PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { echo "$(PYTHON) cannot make a virtual environment: on Debian, apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@# an oracle of the attacks' tests; alone, for it asks for a requests of 2021
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps torchattacks==3.5.1
	@touch $@

setup: $(INSTALLED)  ## Install everything into .venv

run: setup  ## Serve the dashboard at http://127.0.0.1:8050, with content
	@exec $(BIN)/convscope run

lint: setup  ## Lint, format, types, direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint  ## Lint, then the tests, the browser's included
	@sh .ci/chromium $(BIN)/python
	@sh .ci/postgres
	@# a file's tests share what they set up: they stay in one process; the long files come first
	$(BIN)/pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder

bench: setup  ## Measure, side by side, and print tables
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@sh .ci/chromium $(BIN)/python
	@set -e; for script in tests/bench/bench_*.py; do echo; echo "== $$script"; $(BIN)/python $$script; done

zoo: setup  ## Examine networks of transformers, timm and torchvision; writes docs/zoo.md (ARGS=--resume goes on)
	@OMP_NUM_THREADS=1 nice $(BIN)/python tests/zoo/sweep.py $(ARGS)

clean:  ## Remove what set-up and tests made; never your data in ./var
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
