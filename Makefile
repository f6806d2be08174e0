# Plain venv + pip. Every target can be run from any state and again.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help env configure data notebooks book test package pages lint serve pdf screenshots clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
CONSTRAINTS ?= constraints.txt
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
WANTED = $$({ pwd; cat constraints.txt $(CONSTRAINTS); sed '/^\[tool\.[^s]/,$$d' pyproject.toml; } | cksum)

env: ## make or update .venv from constraints.txt (CONSTRAINTS=... for another file, or none)
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
	    && $(PY) -m uv pip install --quiet --python $(PY) $(if $(CONSTRAINTS),-c $(CONSTRAINTS),--upgrade) \
	        -b constraints.txt -e '.[dev]' \
	    && echo "$(WANTED)" > $(VENV)/.installed || { echo "env: failed"; exit 1; }; \
	fi

configure: env ## write what follows from the repository (REPOSITORY=owner/name) and the version
	@$(PY) tools/configure.py $(if $(filter undefined,$(origin REPOSITORY)),,--repository "$(REPOSITORY)")

data: env ## fetch the data sets, checked, to the folder data (for NGEM_DATA_DIR=data)
	@$(PY) tools/data.py data

notebooks: env ## re-execute the pages whose code, package or results changed
	@$(PY) tools/notebooks.py run --jobs $(JOBS)
	@$(PY) tools/claims.py
	@$(PY) tools/readme.py
	@$(PY) tools/api.py
	@$(PY) tools/provenance.py

book: notebooks ## build the HTML book; warnings are errors
	@$(PY) tools/website.py

# Notebooks run as a reader has them who installed the package: see tools/wheel.py.
PAGES = JUPYTER_PATH=$(CURDIR)/_build/wheel/jupyter $(PY) -m pytest \
    --nbval-lax --nbval-kernel-name=wheel --nbval-cell-timeout=120

test: env ## run the tests of the package, of the book in a browser, and every notebook
	@$(PY) tools/mathematics.py
	@$(PY) tools/browser.py
	@$(PY) tools/wheel.py
	@$(PAGES) tests _build/wheel/book \
	    --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder --max-worker-restart=0

# Tests of the book and of the repository: they compare with the pinned versions.
OF_THE_BOOK = $(addprefix tests/,browser test_api.py test_claims.py test_configure.py test_environment.py \
    test_imports.py test_laboratory.py test_notebooks.py test_npm.py test_packaging.py test_pages.py \
    test_provenance.py test_readme.py test_recipes.py test_reference_pages.py test_repository.py \
    test_site_tools.py test_two_modes.py test_wheel.py test_workflows.py)

package: env ## run the tests of the package alone, whatever versions are installed (CONSTRAINTS=...)
	@$(PY) -m pytest tests $(addprefix --ignore=,$(OF_THE_BOOK)) --numprocesses=$(JOBS) --dist=loadfile

pages: env ## run every notebook, and nothing else, with the package as installed from its wheel
	@$(PY) tools/wheel.py
	@$(PAGES) _build/wheel/book --numprocesses=$(JOBS) --dist=loadfile --max-worker-restart=0

lint: env ## check style, types, docstrings, the layers of the package and the workflows
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports --no-logo --no-cache
	@$(VENV)/bin/zizmor --offline --quiet --no-progress .github
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-actions .github/actions/*/action.yml
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml

serve: book ## show the book at http://localhost:8000 (PORT=... for another port)
	@echo "serve: http://localhost:$(PORT) (stop with Ctrl-C)"
	@$(PY) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

pdf: env ## print the book to _build/pdf/book.pdf
	@$(PY) tools/browser.py
	@$(PY) tools/pdf.py

screenshots: env ## take pictures of every page: desktop and phone, light and dark
	@$(PY) tools/browser.py
	@$(PY) tools/screenshots.py

clean: ## delete the built book and the caches of the tools; keep .venv and the notebooks
	@rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	@find ngem_tutorial tests tools -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	@echo "clean: done"
