# Everything that people do here, by name: `make` alone lists it. Needs Python 3.11+ and make; the containers
# also need a Docker engine. Nothing outside this folder is changed.

BIN := .venv/bin
STAMP := .venv/.set-up
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
N ?= 3

# The first Python that is new enough and can make a venv; say `make PYTHON=/path/to/python3` for another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

.DEFAULT_GOAL := help
.PHONY: help setup lint check test test-hosts demo images up scale logs status down bench bench-quick bench-guard bench-curves chaos-long mutations screenshots clean lock

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## make .venv with everything in it: .venv/bin/taskyard

lint: setup ## style, types, and who may import whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

check: lint test ## what CI checks: lint and test

test: setup ## run the tests; `make test ARGS="-k journal -x"` for some of them
	@$(BIN)/python -m pytest $(ARGS)

test-hosts: setup ## the tests with several hosts, which are containers here
	@$(BIN)/python -m pytest -m hosts tests/e2e/hosts $(ARGS)

demo: setup ## set everything up, run the examples on three workers, print their results
	@scripts/demo

images: setup ## build the images, and their base where none can be pulled
	@$(BIN)/python -m taskyard_ctl.images

up: setup ## start a yard with N workers (3)
	@$(BIN)/taskyard up --workers $(N)

scale: setup ## change to N workers: make scale N=5
	@$(BIN)/taskyard scale $(N)

logs: setup ## follow what all workers say
	@$(BIN)/taskyard logs -f

status: setup ## show jobs, workers and rates
	@$(BIN)/taskyard status

down: setup ## stop the yard; what it accepted is kept
	@$(BIN)/taskyard down

bench: setup benchmarks/.venv/.set-up ## this yard beside its peers, 15 minutes; writes docs/benchmarks
	@$(BIN)/python benchmarks/run.py --output docs/benchmarks $(ARGS)

bench-quick: setup ## the ratio to the tutorial pattern, in two minutes
	@$(BIN)/python benchmarks/run.py --quick $(ARGS)

bench-guard: setup ## counted costs beside benchmarks/guard.json; ARGS=--renew writes it, ARGS=--syscalls runs strace
	@$(BIN)/python benchmarks/guard.py $(ARGS)

bench-curves: setup ## how costs grow, ten minutes; make bench-curves ARGS="--only tasks,jobs --most 1e5" for less
	@$(BIN)/python benchmarks/run.py --curves --output docs/benchmarks $(ARGS)

chaos-long: setup ## every fault for ten minutes, as root; writes docs/reliability.md
	@$(BIN)/python tests/chaos/long.py

mutations: setup ## variants of the master that are wrong, and the test that notices each
	@$(BIN)/python tests/chaos/mutations.py

screenshots: setup ## make docs/screenshots anew, with chromium
	@PYTHONPATH=tests $(BIN)/python tests/browser/screenshots.py

clean: ## remove .venv, builds and caches; keep the yard's state, .env and images
	@rm -rf .venv benchmarks/.venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .taskyard/cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The locks have hashes and no host names, so they install from any index. UV_FLAGS=--upgrade takes newer versions.
UV := $(BIN)/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(UV_FLAGS) pyproject.toml

lock: setup ## write locks/ anew from pyproject.toml
	@$(PIP) 'uv>=0.9'
	@$(UV) --extra dev --output-file locks/dev.txt
	@$(UV) --extra master --constraint locks/dev.txt --output-file locks/master.txt
	@$(UV) --constraint locks/dev.txt --output-file locks/worker.txt
	@$(UV) --extra bench --output-file locks/bench.txt

benchmarks/.venv/.set-up: locks/bench.txt benchmarks/set-up
	@benchmarks/set-up $(PYTHON)

$(STAMP): pyproject.toml locks/dev.txt
	@[ -n "$(PYTHON)" ] && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "setup: no Python 3.11+ that makes a venv (on Debian and Ubuntu that is python3-venv):" \
		"install one, or say make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(BIN)/python -c 'import pip' 2>/dev/null || { echo "setup: making .venv"; $(PYTHON) -m venv --clear .venv; }
	@$(PIP) --require-hashes -r locks/dev.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@
