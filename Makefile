# Everything happens in .venv; nothing but python3, pip, git and make is needed.
#   make demo TEXT="Good morning."        speak a sentence into hello.wav
#   make test                             the tests (test-cuda: those that need a GPU)
#   make style | quality | docs           format | check | build the documentation
PYTHON ?= python3
# The build that the tests run with, installed first, so that a local or CPU-only build of it is kept.
TORCH ?= torch==2.13.0
TEXT ?= Good morning! The weather is very nice today.
OUT ?= hello.wav

BIN := .venv/bin
CODE := src tests utils examples benchmarks conversion_scripts docs
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-cuda style quality docs clean

.venv/bin/python:
	$(PYTHON) -m venv .venv || { $(PYTHON) -m venv --clear --without-pip .venv && \
		$(PYTHON) -m pip --python .venv/bin/python install --quiet pip; }

.venv/.torch: | .venv/bin/python
	$(PIP) "$(TORCH)"
	@touch $@

.venv/.package: pyproject.toml | .venv/.torch
	$(PIP) --editable .
	@touch $@

.venv/.dev: pyproject.toml | .venv/.package
	$(PIP) --editable ".[dev,reference]"
	@touch $@

.venv/.docs: pyproject.toml | .venv/.package
	$(PIP) --editable ".[docs]"
	@touch $@

demo: .venv/.package
	$(BIN)/tts-models speak "$(TEXT)" --output "$(OUT)" --seed 0

test: .venv/.dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4

test-cuda: .venv/.dev
	$(BIN)/python -m pytest -m gpu

style: .venv/.dev
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

quality: .venv/.dev
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/python utils/check_repo.py
	$(BIN)/mlinter src/tts_models/models

docs: .venv/.docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs/source docs/_build
	@echo "docs/_build/index.html"

clean:
	rm -rf .venv docs/_build
