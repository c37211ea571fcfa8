PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: run test check bench setup setup-test slurm clean

run: setup            ## run the quickstart campaign
	$(BIN)/coppice run campaigns/quickstart.yaml --new

test: setup-test slurm check ## every check and test
	$(BIN)/python -m pytest

check: setup-test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

slurm:                ## a real Slurm for the tests, where packages may be installed
	sh tests/support/slurm/install.sh

bench: setup-test      ## side-by-side measurements; each prints its ratios
	$(PIP) --no-deps torch-pruning==1.6.1 gromo==0.1.0
	for b in benchmarks/*.py; do $(BIN)/python -P $$b || exit 1; done

setup: $(VENV)/.ready
setup-test: $(VENV)/.ready-test

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) -e .
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	$(PIP) -e ".[test]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
