# The only commands to remember. Each makes the environment first if it is missing or out of date.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help install quickstart test lint format docs results compat clean

help:
	@echo "make quickstart   train the digits recipe (at most five minutes) and say where the pictures are"
	@echo "make test         run all tests"
	@echo "make lint         ruff and mypy"
	@echo "make format       let ruff format the code"
	@echo "make docs         draw the pictures and build the documentation into site/"
	@echo "make results      make docs/results/*.md from the raw rows beside them"
	@echo "make compat       the core's tests in a bare environment (PYTHON=python3.13 TORCH=2.4.0 choose versions)"
	@echo "make clean        remove the environment"

install: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed: make PYTHON=python3.11 ...')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "Installing (PyTorch is large; a few minutes the first time) ..."
	$(BIN)/python -m pip install --quiet -e ".[gan,lite0,attacks,examples,dev,docs]"
	@touch $@

quickstart: install
	$(BIN)/python train_gan.py --config configs/gan/quickstart.yaml

# Compiled files, even where the environment is set to write none: tests start many processes.
test: install
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist worksteal --durations=5

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install
	$(BIN)/python docs/draw.py
	$(BIN)/python -m mkdocs build --strict

results: install
	$(BIN)/python docs/make_results.py

# Not part of CI: it downloads a PyTorch of its own (2 to 6 GB). docs/install.md has what was seen.
compat:
	bash tests/compat.sh $(PYTHON) $(TORCH)

clean:
	rm -rf $(VENV)
