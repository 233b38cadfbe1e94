# Every target does the set-up that it needs; a second call finds it done.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.set-up
# Threads that wait must not take the cores from those that work; see pipeline/cli/app.py.
export GOMP_SPINCOUNT ?= 20000
export OPENBLAS_NUM_THREADS ?= 1

# Tests that train and search nothing; what takes minutes is left to `make test`.
QUICK := tests/latency_models tests/export/lowering tests/pipeline/config tests/pipeline/data tests/pipeline/strategies \
         tests/pipeline/trials tests/system/test_docs.py tests/system/test_docstrings.py
SLOW  := tests/pipeline/strategies/test_base.py tests/pipeline/strategies/test_wide_spaces.py
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

.PHONY: venv demo check test lint clean

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

check: lint
	$(PYTEST) $(QUICK) $(SLOW:%=--ignore=%)

test: lint
	$(PYTEST)

clean:
	rm -rf $(VENV) runs build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
