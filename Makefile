# Every target sets up .venv first if needed.
.DEFAULT_GOAL := help
.PHONY: help setup lock run test lint docs bench zoo clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

help:  ## List the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Convscope needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version): set PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "$(PYTHON) cannot create a virtual environment: on Debian, apt-get install python3-venv" >&2; exit 1; }

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@# an oracle for the tests of the attacks; without its dependencies, see pyproject.toml
	$(PIP) install --no-deps torchattacks==3.5.1
	@touch $@

setup: $(INSTALLED)  ## Install everything into .venv

lock: | $(BIN)/python  ## Write constraints.txt: install the dependencies of pyproject.toml and pin every package
	$(PIP) install --editable '.[dev,bench,docs]'
	@# Without local versions (torch 2.13.0+cpu) and packages that only the CUDA build of torch needs: the file must suit
	@# machines with and without a GPU. torchattacks is installed alone, see above.
	@$(BIN)/python -m pip freeze --all --exclude-editable --exclude pip --exclude wheel --exclude torchattacks \
		> constraints.new
	@sed -E -i '/^(nvidia|cuda|triton)/d; s/\+[a-z0-9.]+$$//' constraints.new
	@if grep -Ev '^[A-Za-z0-9._-]+==[A-Za-z0-9.!]+$$' constraints.new; then \
		echo 'expected NAME==VERSION, got the lines above: install these packages from a registry' >&2; exit 1; fi
	@{ echo '# Written by `make lock` from .venv: all packages at the versions that the tests ran with.'; \
		LC_ALL=C sort -f constraints.new; } > constraints.txt
	@rm constraints.new

run: setup  ## Serve the dashboard with sample content at http://127.0.0.1:8050
	@exec $(BIN)/convscope run

# Checks and tests of the JavaScript; Node comes with setup. Running Convscope needs none of this.
NPM := PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix tests/browser --silent
MODULES := tests/browser/node_modules/.package-lock.json

$(MODULES): tests/browser/package-lock.json | $(INSTALLED)
	@$(NPM) ci --no-audit --no-fund --ignore-scripts
	@touch $@

lint: setup $(MODULES)  ## Check lint, format, types and import direction
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(NPM) run lint

test: lint  ## Lint, then run all tests, including those in a browser
	@sh .ci/chromium $(BIN)/python
	@sh .ci/postgres
	$(NPM) test
	@# a file's tests share what they set up: they stay in one process; the long files come first
	$(BIN)/pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder

docs: setup  ## Build the documentation into site/
	@$(PIP) install --constraint constraints.txt --editable '.[dev,docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: setup  ## Run the benchmarks and print tables
	@$(PIP) install --constraint constraints.txt --editable '.[dev,bench]'
	@sh .ci/chromium $(BIN)/python
	@set -e; for script in tests/bench/bench_*.py; do echo; echo "== $$script"; $(BIN)/python $$script; done

zoo: setup  ## Examine networks of transformers, timm and torchvision; writes docs/zoo.md (ARGS=--resume resumes)
	@OMP_NUM_THREADS=1 nice $(BIN)/python tests/zoo/sweep.py $(ARGS)

clean:  ## Remove what setup and tests created; never your data in ./var
	rm -rf $(VENV) tests/browser/node_modules site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
