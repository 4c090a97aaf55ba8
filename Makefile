# make quickstart   set up everything and train on the built-in phantom
# make test         set up everything and run the tests (test-all: the slow ones too; test-NAME: those of tests/NAME)
# make fuzz         damaged records through the commands that read them, and damaged images through ddtl predict
# make lint         ruff, mypy, and the layers of the package
# make axe          barriers on pages and in the dashboard, by axe-core in Chromium
# make docs         the pages in build/docs, with the gallery's examples run; offline once it was made
# make lock         resolve the dependencies again into requirements.lock, uv itself into requirements-uv.lock, and what
#                   builds the pages into requirements-docs.lock
# make env          only set up .venv

VENV := .venv
# Test processes, of one thread each: one more than the two cores of the smallest machine, since many tests wait.
WORKERS ?= 3
BIN := $(VENV)/bin
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.ready-docs

# The first interpreter that runs and is of a supported version; PYTHON=… names another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)

# Bytecode is kept: without it every process compiles torch and Lightning again, which takes ten seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test test-all fuzz lint axe docs env lock

quickstart: env
	$(BIN)/python train.py

test: env
	$(PYTEST) -m "not slow"

test-all: env
	$(PYTEST)

test-%: env
	$(PYTEST) tests/$*

fuzz: env
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.fuzz --keys
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.fuzz_inputs

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

axe: env
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.axe

docs: $(DOCS_READY)
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -W --keep-going -q -b html -d build/doctrees docs build/docs
	@echo "build/docs/index.html"

env: $(READY)

$(READY): requirements.lock requirements-uv.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 with venv is needed; PYTHON=/path/to/python names one."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	$(BIN)/uv pip install --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $(READY)

$(DOCS_READY): $(READY) requirements-docs.lock
	$(BIN)/uv pip install --python $(BIN)/python --require-hashes -r requirements-docs.lock
	@touch $(DOCS_READY)

lock: env
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras --generate-hashes \
		--no-header --no-emit-index-url --upgrade -o requirements.lock
	echo uv | $(BIN)/uv pip compile - --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --upgrade -o requirements-uv.lock
	$(BIN)/uv pip compile --group docs --constraints requirements.lock --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --upgrade -o requirements-docs.lock
