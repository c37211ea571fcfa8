# Any Python >= 3.11 that can make environments. 3.11 goes first: the versions in constraints.txt are tested with it.
PYTHON ?= python3.11 python3.14 python3.13 python3.12 python3
FITS   := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --progress-bar off --disable-pip-version-check -c constraints.txt
# Of what pip says: what takes long.
SHOW   := awk '/Downloading .*[0-9] [MG]B\)/ {print "  " $$0} /^Installing/ {print "  Installing"} {fflush()}'

# Tests of rooms that start no Ray, no Slurm and no page: they run side by side.
SIDE_BY_SIDE := tests/methods tests/scheduler tests/testing tests/zoo \
  $(addprefix tests/orchestrator/,config doctor folder planning report tasks trial)

SHELL       := bash
.SHELLFLAGS := -o pipefail -ec

.PHONY: run test test-long check docs bench setup setup-test slurm clean

run: setup            ## run the quickstart campaign
	@echo "Running campaigns/quickstart.yaml: about 1 minute on two cores."
	$(BIN)/coppice run campaigns/quickstart.yaml --new

test: setup-test slurm check ## every check and test
	@echo "Running the tests: about 30 minutes on two cores."
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile $(SIDE_BY_SIDE)
	$(BIN)/python -m pytest $(addprefix --ignore=,$(SIDE_BY_SIDE))

test-long: setup-test slurm ## the tests that take minutes each
	$(BIN)/python -m pytest -m long

check: setup-test
	@echo "Checking style, types and imports: about 1 minute."
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

slurm:                ## a real Slurm for the tests, where packages may be installed
	sh tests/support/slurm/install.sh

docs: setup-test       ## the site, in build/site; a broken link is an error
	$(BIN)/python -m mkdocs build --strict
	@echo "Open build/site/index.html, or: $(BIN)/python -m mkdocs serve"

bench: setup-test      ## side-by-side measurements; each prints its ratios
	$(PIP) --quiet --no-deps torch-pruning==1.6.1 gromo==0.1.0
	for b in benchmarks/*.py; do $(BIN)/python -P $$b || exit 1; done

setup: $(VENV)/.ready
setup-test: $(VENV)/.ready-test

$(BIN)/python:
	@for python in $(PYTHON); do \
	  if "$$python" -c '$(FITS)' >/dev/null 2>&1; then \
	    echo "Making $(VENV) with $$("$$python" --version), $$(command -v "$$python")."; \
	    exec "$$python" -m venv $(VENV); \
	  fi; \
	done; \
	echo "Python 3.11 or newer with the modules venv and ensurepip must be on the PATH, but none of these is that: $(PYTHON)." >&2; \
	echo "Install one (Debian, Ubuntu: apt install python3 python3-venv) or name one: make run PYTHON=/path/to/python3" >&2; \
	exit 1

$(VENV)/.ready: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up $(VENV): about 1.5 minutes where the network is fast. 1 of 2: PyTorch."
	@$(PIP) torch==2.13.0 | $(SHOW)
	@echo "2 of 2: Ray, Optuna and the other packages."
	@$(PIP) -e . | $(SHOW)
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	@echo "Adding the test tools: pytest, ruff, mypy, import-linter, and the models of the zoo."
	@$(PIP) --no-compile -e ".[test,zoo]" | $(SHOW)
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
