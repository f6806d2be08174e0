# Plain venv + pip. Every target can be run from any state and again.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help env notebooks book test lint serve clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PY := $(VENV)/bin/python
PORT ?= 8000
JOBS ?= 2

# One CPU execution thread pool: jax 0.10 can deadlock on two cores without it.
export PJRT_NPROC := 1
# One thread for the small factorisations of SOAP: more wait for each other.
export OPENBLAS_NUM_THREADS := 1
# No progress bars in stored outputs, no chatter from absl and TensorFlow's C++ parts.
export NGEM_PROGRESS := 0
export TF_CPP_MIN_LOG_LEVEL := 2
export ABSL_MIN_LOG_LEVEL := 2
export PYTHONUNBUFFERED := 1

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

# What the environment was made from: its place, its pins and the part of pyproject.toml that installing reads.
WANTED = $$({ pwd; cat constraints.txt; sed '/^\[tool\.[^s]/,$$d' pyproject.toml; } | cksum)

env: ## make or update .venv from constraints.txt
	@if ! $(PY) -c 'import pip' 2>/dev/null; then \
	    echo "env: making $(VENV) with $(PYTHON)"; \
	    test -z "$$CONDA_PREFIX" || echo "env: the active conda environment $$CONDA_DEFAULT_ENV is left as it is:" \
	        "the pinned versions go to $(VENV). To have them in conda: conda env create -f environment.yml"; \
	    "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")' \
	    && "$(PYTHON)" -m venv --clear $(VENV) || exit 1; \
	fi; \
	if [ "$$(cat $(VENV)/.installed 2>/dev/null)" != "$(WANTED)" ]; then \
	    echo "env: installing the pinned packages"; \
	    $(PY) -m pip install --quiet --disable-pip-version-check $$(grep '^uv==' constraints.txt) \
	    && $(PY) -m uv pip install --quiet --python $(PY) -c constraints.txt -b constraints.txt -e '.[dev]' \
	    && echo "$(WANTED)" > $(VENV)/.installed || { echo "env: failed"; exit 1; }; \
	fi

notebooks: env ## re-execute the pages whose code, package or results changed
	@$(PY) tools/notebooks.py run --jobs $(JOBS)
	@$(PY) tools/claims.py

book: notebooks ## build the HTML book; warnings are errors
	@$(PY) tools/mathjax.py
	@$(PY) $(VENV)/bin/jupyter-book build . --all --quiet --warningiserror --nitpick --keep-going
	@echo "book: $(CURDIR)/_build/html/index.html"

test: env ## run the tests of the package and of the book, and every notebook
	@$(PY) -m pytest tests book --nbval-lax --nbval-current-env --nbval-cell-timeout=120 \
	    --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder --max-worker-restart=0

lint: env ## check style, formatting, types, docstrings and the layers of the package
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports --no-logo --no-cache

serve: book ## show the book at http://localhost:8000 (PORT=... for another port)
	@echo "serve: http://localhost:$(PORT) (stop with Ctrl-C)"
	@$(PY) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

clean: ## delete the built book and the caches of the tools; keep .venv and the notebooks
	@rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	@find ngem_tutorial tests tools -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	@echo "clean: done"
