# What people do with a clone. `make` alone lists it.

PYTHON ?= python3
VENV := .venv
UV := $(VENV)/bin/uv
# Two states of the environment: all that `make up` runs, and, on top of it, every extra and what tests and lint need.
RUNNABLE := $(VENV)/.runnable
READY := $(VENV)/.ready
# uv shows the progress of downloads in a terminal; a log gets our own line alone.
INSTALL = $(UV) pip install --python $(VENV)/bin/python --no-deps $(shell test -t 2 || echo --quiet)
CODE := src tests examples scripts bench
# For the portfolio's applications: complete, so that they are installed with --no-deps --require-hashes.
PIN := $(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --quiet --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help up check test coverage test-kubernetes lint format docs lock clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(RUNNABLE) ## train and serve the portfolio (examples/portfolio); Ctrl-C stops; PORT=9000 moves all its ports
	@exec $(VENV)/bin/estiba up -C examples/portfolio $(if $(PORT),--port $(PORT)) $(foreach name,$(PROFILE),--profile $(name))

check: $(READY) ## lint, types and the fast tests, in a minute: what to run before a commit (no root, no Docker)
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/ruff format --check $(CODE)
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile -m "not slow" --timeout 20

test: $(READY) ## run the whole test suite; a folder or a file of tests/ with T: make test T=serving, T=core/test_shell.py
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile $(addprefix tests/,$(T))

coverage: $(READY) ## run the whole test suite and report the lines that no test executes
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --cov=estiba --cov-report=term-missing:skip-covered

test-kubernetes: $(READY) ## build a Kubernetes cluster, once, and run the tests that need one (Debian, root)
	scripts/lab/kubernetes/build
	ESTIBA_KUBERNETES=1 $(VENV)/bin/python -m pytest tests/deploy -k cluster -rP

lint: $(READY) ## ruff, mypy --strict, words, and whether generated pages are up to date
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/ruff format --check $(CODE)
	$(VENV)/bin/mypy
	$(VENV)/bin/python scripts/words.py
	$(VENV)/bin/python scripts/translations.py --check
	$(VENV)/bin/python scripts/reference.py --check
	$(VENV)/bin/python scripts/conversion_table.py --check

format: $(READY) ## let ruff arrange the code
	$(VENV)/bin/ruff check --fix $(CODE)
	$(VENV)/bin/ruff format $(CODE)

docs: $(READY) ## write the generated pages and the list of messages to translate again
	$(VENV)/bin/python scripts/translations.py
	$(VENV)/bin/python scripts/reference.py
	$(VENV)/bin/python scripts/conversion_table.py

lock: $(READY) ## resolve requirements.lock again after a change of pyproject.toml
	$(UV) pip compile pyproject.toml --all-extras --group test --group lint --universal --generate-hashes --quiet -o requirements.lock
	$(UV) pip compile pyproject.toml --extra train --constraint requirements.lock --universal --generate-hashes --no-annotate --quiet -o requirements-up.lock
	cd examples/portfolio && for app in flask_api iris_fastapi; do \
	  ../../$(PIN) $$app/requirements.in -o $$app/requirements.txt || exit; done
	cd examples/portfolio && for app in dashboard mlflow_server training; do \
	  ../../$(PIN) $$app/requirements.in --override $$app/overrides.txt -o $$app/requirements.txt || exit; done
	cd examples/portfolio && ../../$(PIN) notebook/requirements.in ../../pyproject.toml --extra train -o notebook/requirements.txt

clean: ## remove the environment, what was trained, and caches
	rm -rf $(VENV) .estiba examples/portfolio/.estiba .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* dist build

$(RUNNABLE): pyproject.toml requirements-up.lock examples/portfolio/requirements.txt hatch_build.py $(wildcard native/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Estiba needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing Estiba and the libraries that the portfolio trains with into $(VENV): 150 MB to download, 490 MB on disk."
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make an environment. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@test -x $(UV) || $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(INSTALL) --require-hashes -r requirements-up.lock -r examples/portfolio/requirements.txt
	@$(INSTALL) --quiet -e .
	@touch $@

$(READY): $(RUNNABLE) requirements.lock
	@echo "Installing all extras and the tools of tests and lint into $(VENV): 420 MB to download, 1.1 GB more on disk."
	@$(INSTALL) --require-hashes -r requirements.lock
	@touch $@
