# Every target does the set-up that it needs; a second call finds it done.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.set-up
# Threads that wait must not take the cores from those that work; see pipeline/cli/app.py.
export GOMP_SPINCOUNT ?= 20000
export OPENBLAS_NUM_THREADS ?= 1

# A file's tests stay with one worker, which makes what they share once; tests/conftest.py says which come first.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: venv demo check docs test lint clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: venv
	$(BIN)/hwnas search configs/digits-cpu.yaml

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# For daily work: lint, types, and the tests that train nothing.
check: lint
	$(PYTEST) -m "not slow"

# The documentation against the code: commands, examples, links, the map, the manifest's tables.
docs: venv
	$(BIN)/python -m pytest tests/system/test_docs.py tests/system/test_docstrings.py

# Everything: what `check` and `docs` run, and the slow tests, in one go.
test: lint
	$(PYTEST)

clean:
	rm -rf $(VENV) runs build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
