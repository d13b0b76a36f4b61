# make quickstart   environment + synthetic videos + short CPU training + evaluation + picture
# make test         environment + the whole test suite
# make lint         ruff
# make lock         raise every package to the newest release that requirements*.txt allow
#
# The environment is made in .venv, of exactly the releases in requirements-lock-*.txt. It needs
# Python >= 3.11, plus a Java runtime for METEOR (tests that need Java are skipped without it).

PYTHON ?= python3
VENV ?= .venv
# Where there is an NVIDIA driver, torch's default wheel and its CUDA libraries; elsewhere the CPU
# build, which is far smaller. make BUILD=cpu and BUILD=cuda overrule what is found.
BUILD ?= $(if $(shell command -v nvidia-smi),cuda,cpu)
# Where PyTorch offers its CPU build. Without it, or with TORCH_INDEX= , pip takes what it finds.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

LOCK := requirements-lock-$(BUILD).txt
STAMP := $(VENV)/.installed
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check

.PHONY: quickstart test lint lock environment environment-demo clean

# The first target: `make` alone makes the environment.
environment: $(STAMP)

quickstart: $(STAMP)
	$(VENV)/bin/distime quickstart --output quickstart $(ARGS)

test: $(STAMP)
	$(VENV)/bin/python -m pytest $(ARGS)

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

$(STAMP): $(LOCK) pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
ifeq ($(BUILD),cpu)
	$(PIP) install --quiet --no-deps --retries 0 \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$$(grep '^torch==' $(LOCK))"
endif
	$(PIP) install --quiet --requirement $(LOCK)
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Also what `distime demo` needs; its Gradio asks for an older Pillow than the lock's.
environment-demo: $(STAMP)
	$(PIP) install --quiet --requirement requirements-lock-demo.txt

lock: build/uv/bin/uv
	UV=build/uv/bin/uv .ci/lock .

build/uv/bin/uv:
	$(PYTHON) -m venv build/uv
	build/uv/bin/python -m pip --disable-pip-version-check install --quiet uv

clean:
	rm -rf $(VENV) build quickstart
