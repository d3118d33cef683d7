# One command for each thing a person wants. A virtual environment in .venv is made on the first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TEST_READY := $(VENV)/.test-ready
# A test file after the other on each core, four at most: every one may have a JupyterLab and a browser of its own. The order
# is that of tests/conftest.py, the long files first.
TOGETHER := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help quickstart lab test test-quick test-extended gpu-check gpu-table bench lint format readme screenshots

help:
	@echo "make quickstart     train a tokenizer on embedded photographs, measure it, print its table row (a few minutes)"
	@echo "make lab            JupyterLab, open at notebooks/00_start.ipynb"
	@echo "make test           every test"
	@echo "make test-quick     while you work: none in a browser, none that starts programs (a few minutes)"
	@echo "make test-extended  the long tests too"
	@echo "make gpu-check      one short row on the GPU: speed, memory, and whether it computes what the CPU does"
	@echo "make gpu-table      ten minutes of a GPU: its tests, the check, paper rows beside their estimates, rows of celeba64"
	@echo "make bench          the benchmarks; their table goes to tests/benchmarks/RESULTS.md"
	@echo "make lint, format   ruff"
	@echo "make screenshots    the screenshots in the READMEs anew, by exploring the notebooks in a browser"
	@echo "make readme         the tables in the READMEs anew, from the records in runs/"

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "vistok needs Python 3.11 or later; name one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(TEST_READY): $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

quickstart: $(READY)
	$(BIN)/python -m vistok.tables celeba64 --rows ema-d4 --scale quick --dataset photos

lab: $(READY)
	$(BIN)/jupyter lab --notebook-dir=notebooks --LabApp.default_url=/lab/tree/00_start.ipynb $(if $(filter 0,$(shell id -u)),--allow-root)

test: $(TEST_READY) lint
	$(BIN)/python -m pytest tests $(TOGETHER)

test-quick: $(TEST_READY) lint
	$(BIN)/python -m pytest tests --ignore tests/browser -m "not slow" $(TOGETHER)

test-extended: $(TEST_READY) lint
	VISTOK_EXTENDED=1 $(BIN)/python -m pytest tests $(TOGETHER)

gpu-check: $(READY)
	$(BIN)/python -m vistok.gpu_check

gpu-table: $(TEST_READY)
	$(BIN)/python -m vistok.tables.gpu $(ARGS)

bench: $(TEST_READY)
	PYTHONPATH=tests $(BIN)/python -m benchmarks $(ARGS)

lint: $(TEST_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(TEST_READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

readme: $(READY)
	$(BIN)/python -m vistok.tables celeba64 --readme

screenshots: $(TEST_READY)
	VISTOK_SCREENSHOTS=1 $(BIN)/python -m pytest tests/browser
