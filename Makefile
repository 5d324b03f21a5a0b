# scorelab: `make train` and `make test` set everything up; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PINS := pyproject.toml constraints.txt
STYLED := src tests docs scripts benchmarks
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help train cluster sync test test-slow test-faults test-cluster test-page bench results lint figures format clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

train: $(VENV)/.ready  ## train and evaluate a model: make train ARGS="loss=vlb schedule=cosine"
	$(RUN) src/train.py $(ARGS)

cluster: $(VENV)/.ready-cluster  ## install the launchers and the search of sweeps: joblib, submitit (Slurm), optuna

sync: $(VENV)/.ready  ## upload to W&B what runs kept on disk: make sync ARGS="logs/train/NAME"
	@$(RUN) -m scorelab.tracking.sync $(ARGS)

test: $(VENV)/.ready-test  ## run the tests: make test ARGS="-k schedules"
	$(RUN) -m pytest $(ARGS)

test-slow: $(VENV)/.ready-test  ## run the long tests: kills, whole sweeps, several processes
	$(RUN) -m pytest -m slow $(ARGS)

test-faults: $(VENV)/.ready-test  ## kill runs at random and compare: FAULTS_SEED= FAULTS_KILLS= make test-faults
	$(RUN) -m pytest tests/faults -m faults -n 2 --dist loadgroup $(ARGS)

test-cluster: $(VENV)/.ready-test  ## run jobs on a real Slurm, the one that is there; INSTALL=1 installs one (Debian)
	@$(RUN) tests/cluster/slurm.py tests/cluster -m cluster -n 0 $(ARGS)

test-page: $(VENV)/.ready-test  ## look at the comparison page in Chromium, the one that is there; INSTALL=1 installs one (Debian)
	@$(RUN) tests/browser.py tests/test_page.py $(ARGS)

bench: $(VENV)/.ready-bench  ## measure against other projects on an idle machine; benchmarks/RESULTS.md has the tables
	@for each in train_step overhead sampling exact_score startup busy; do \
		OMP_NUM_THREADS=1 $(RUN) benchmarks/$$each.py || exit 1; done

results: $(VENV)/.ready-cluster  ## repeat the sweeps of results/, hours of a laptop: one thread each, as many at a time as there are cores
	$(RUN) scripts/results.py

lint: $(VENV)/.ready-test  ## check style and types
	$(VENV)/bin/ruff check $(STYLED)
	$(VENV)/bin/ruff format --check $(STYLED)
	$(VENV)/bin/mypy

figures: $(VENV)/.ready  ## draw the figures of the documents anew
	$(RUN) docs/architecture.py
	$(RUN) docs/cards.py
	$(RUN) docs/theory.py
	$(RUN) docs/growth.py

format: $(VENV)/.ready-test  ## mend style where a tool can
	$(VENV)/bin/ruff check --fix $(STYLED)
	$(VENV)/bin/ruff format $(STYLED)

clean:  ## remove the environment and caches; logs/ stays
	rm -rf $(VENV) build src/*.egg-info .pytest_cache .ruff_cache .mypy_cache
	find src tests -name __pycache__ -type d -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "scorelab needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: $(VENV)/bin/python $(PINS)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.ready-cluster: $(VENV)/.ready
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[cluster]'
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[test,cluster]'
	touch $@

$(VENV)/.ready-bench: $(VENV)/.ready
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@
