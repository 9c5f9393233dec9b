# make setup   a fresh .venv with rotomem built into it
# make demo    render a shot, track it, compare with the truth
# make test    lint, then every test, with line coverage
# make bench   timings of kernels and whole shots; BENCH="read --case 480p" picks
# make lint    ruff, mypy, layers
PYTHON ?= python3
BENCH ?= all --out build/bench
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml $(shell find ext kernels -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' -o -name CMakeLists.txt)

.PHONY: setup demo test bench lint clean

setup: $(VENV)/.built

# torch first and pinned: whatever else asks for it is then content with the one that is there.
$(VENV)/.torch: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$$(sed -n 's/^ *"\(torch==[0-9.]*\)",*/\1/p' pyproject.toml)" numpy
	touch $@

$(VENV)/.built: $(VENV)/.torch $(SOURCES)
	$(BIN)/python -m pip install --quiet "scikit-build-core>=0.10" "pybind11>=2.13" cmake ninja
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/rotomem demo --out rotomem_demo

test: lint
	$(BIN)/python -m pytest --cov=rotomem --cov-report=term:skip-covered --durations=10

bench: setup
	$(BIN)/rotomem bench $(BENCH)

lint: setup
	$(BIN)/ruff check python kernels tests
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist rotomem_demo
