# make quickstart   environment + synthetic videos + short CPU training + evaluation + picture
# make test         environment + the whole test suite
# make lint         ruff
#
# The environment is made in .venv and needs Python >= 3.10, plus a Java runtime for METEOR (tests
# that need Java are skipped without it).

PYTHON ?= python3
VENV ?= .venv
STAMP := $(VENV)/.installed
# A CUDA machine takes the default wheels; elsewhere the CPU build is enough and far smaller.
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
# Also `demo`, to test the page: make environment EXTRAS=test,demo
EXTRAS ?= test

.PHONY: quickstart test lint environment clean

quickstart: $(STAMP)
	$(VENV)/bin/distime quickstart --output quickstart $(ARGS)

test: $(STAMP)
	$(VENV)/bin/python -m pytest $(ARGS)

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

environment: $(STAMP)

$(STAMP): requirements.txt requirements-test.txt requirements-demo.txt pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet "$$(grep '^torch==' requirements.txt)"
	$(PIP) install --quiet --editable ".[$(EXTRAS)]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) quickstart
