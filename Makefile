# Every target sets up what it needs: a virtual environment in .venv with the versions of constraints.txt.
# Needs Linux, make and Python 3.11 or newer with its venv module; another one: make demo PYTHON=python3.12

PYTHON ?= $(shell for each in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$each && break; done)
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
# Tests start many processes: each would compile fedfsd anew where the environment forbids to keep the result.
export PYTHONDONTWRITEBYTECODE :=
# As many as a machine of two cores has; more where there are more: make test WORKERS=8
WORKERS ?= 2
# A file goes to the next free worker in one piece: what its tests share is made once. The longest come first
# (tests/conftest.py).
ORDER := --dist loadfile --no-loadscope-reorder

.PHONY: setup demo federation test check lint format types imports tests quick mutation proto kit clean

setup: .venv/setup.done

.venv/setup.done: constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "setup: got no Python 3.11 or newer, expected one on the PATH;" \
		"fix: install it (Debian, Ubuntu: apt-get install python3 python3-venv)," \
		"or name it: make setup PYTHON=/path/to/python3" >&2; exit 4; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "setup: got $$($(PYTHON) --version 2>&1), expected Python 3.11 or newer;" \
		"fix: make setup PYTHON=/path/to/a/newer/python3" >&2; exit 4; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "setup: got $(PYTHON) without its venv module;" \
		"fix: install it (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 4; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --no-compile \
		--editable '.[test]'
	@# pip would compile on one processor, other packages' tests too. What cannot be compiled is never imported.
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' .venv/lib fedfsd || true
	@touch $@

# A run of a few minutes in a new folder; its last line is the report to open.
demo: setup
	$(BIN)/fedfsd simulate experiments/quickstart.toml -o runs/demo-$$(date +%Y%m%d-%H%M%S)

# A coordinator and three regions as processes of their own, an experiment over the border, an audit of it.
federation: setup
	$(BIN)/python -m experiments.federation

# Everything that CI checks: lint and types beside the tests, each with its output in one piece. The + lets
# the tests' own output through as it comes.
test: setup
	@$(MAKE) --no-print-directory --jobs --output-sync=target --keep-going lint format types imports tests

# For daily work: the same without the slow tests.
check: setup
	@$(MAKE) --no-print-directory --jobs --output-sync=target --keep-going lint types quick

lint:
	$(BIN)/ruff check
format:
	$(BIN)/ruff format --check
types:
	$(BIN)/mypy
imports:
	$(BIN)/lint-imports
tests:
	+$(BIN)/pytest -n $(WORKERS) $(ORDER)
quick:
	+$(BIN)/pytest -n $(WORKERS) $(ORDER) -m "not slow"

# How strong the tests are where the privacy promise is made; hours of one core. Not part of make test.
mutation: setup
	$(BIN)/python -m experiments.mutation $(ARGUMENTS)

# What is generated: run it after an edit of border.proto or waymo.proto.
proto: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt grpcio-tools
	$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. fedfsd/border/border.proto
	$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. fedfsd/drive/reader/waymo.proto

# Everything that a data centre without a package index needs, in dist/kit; AUDITOR=1: without torch and Flower.
kit: setup
	$(BIN)/python -m fedfsd.service.kit --output dist/kit $(if $(AUDITOR),--auditor)

clean:
	rm -rf .venv .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
