# `make` tells what there is; `make reproduce` and `make test` are the two commands that matter.

PROFILE ?= laptop
ONLY    ?=
WORKERS ?= 1
# Where the environment is; empty: the active one (conda, a container) is used and completed.
VENV    ?= .venv
# The Python that an environment is made with; later the one inside it.
PYTHON  ?= $(shell test -x '$(VENV)/bin/python' -a -f '$(VENV)/bin/pip' && echo '$(VENV)/bin/python' || echo python3)

PY = $(if $(VENV),$(VENV)/bin/python,$(PYTHON))

.DEFAULT_GOAL := help
.PHONY: help setup reproduce test lab class bench notebooks verify lint clean profile

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "variables       PROFILE=smoke|laptop|paper (default laptop), ONLY='01_kar ...' (default all notebooks),"
	@echo "                WORKERS=N notebooks at a time, PYTHON=python3.12, VENV=DIR (empty: the active environment),"
	@echo "                LONG=1 compares the longest notebooks in make test"

setup:  ## make the environment from environment.yml, once; a repeat takes no time
	@$(PYTHON) rec_utils/bootstrap.py $(if $(VENV),--venv $(VENV),--active)

reproduce: profile setup verify  ## run the notebooks and print the verdict on every claim
	$(PY) -m rec_utils.batch run --profile $(PROFILE) --workers $(WORKERS) --report $(ONLY)

test: setup lint verify  ## all checks: style, data, unit, contract and gate tests, notebooks compared
	$(PY) -m pytest -n 2 --dist load --maxschedchunk 1 tests/contract/test_nbval.py
	$(PY) -m pytest -n 2 --dist loadfile --deselect tests/contract/test_nbval.py

lab: setup  ## open JupyterLab
	$(PY) -m jupyterlab notebooks/00_start_here.ipynb

class: setup  ## copies of the tutorials without answers, in class/
	$(PY) -m rec_utils.class_copies $(ONLY)

bench: setup  ## race other libraries, measure streams, raw data and grids, write README's report (over an hour)
	$(PY) -m tests.bench.training --record training
	$(PY) -m tests.bench.diffusion --record diffusion
	$(PY) -m tests.bench.decoding --record decoding
	$(PY) -m tests.bench.streaming --record streaming
	$(PY) -m tests.bench.raw_data --record raw_data
	$(PY) -m tests.bench.grid --record grid
	$(PY) -m rec_utils.report update

notebooks: setup  ## execute the notebooks at their defaults and store the outputs
	$(PY) -m rec_utils.notebooks execute $(ONLY)

verify: setup  ## compare the bundled data with their hashes
	$(PY) -m data_prep verify

lint: setup  ## check the style of the code
	$(PY) -m ruff check
	$(PY) -m ruff format --check

clean:  ## remove the environment and caches; data, runs and figures stay
	rm -rf .venv .pytest_cache .hypothesis .ruff_cache build *.egg-info
	find . -name __pycache__ -not -path './.data/*' -prune -exec rm -rf {} +

profile:
	@$(if $(filter $(PROFILE),smoke laptop paper),:,$(error PROFILE=$(PROFILE) is not one of smoke, laptop, paper))
