# Every target does the set-up that it needs; a second call finds it done.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.set-up
# Threads that wait must not take the cores from those that work; see pipeline/cli.py.
export GOMP_SPINCOUNT ?= 20000
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: venv demo test lint benchmarks clean

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

test: lint
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

clean:
	rm -rf $(VENV) runs build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
