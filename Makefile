# make setup   a fresh .venv with rotomem built into it
# make demo    render a shot, track it, compare with the truth
# make test    lint, then every test, with line coverage
# make test-gpu   what needs an NVIDIA device; then make sanitize, the same under compute-sanitizer
# make bench   timings of kernels and whole shots; BENCH="read --case 480p" picks
# make lint    ruff, mypy, layers
PYTHON ?= python3
BENCH ?= all --out build/bench
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml $(shell find ext kernels -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' -o -name CMakeLists.txt)

.PHONY: setup demo test test-gpu sanitize bench lint clean

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

# Fails with the reason where there is no device: tests that were all skipped would look like success.
DEVICE_CHECK := import torch; from rotomem.ops import backend; \
  raise SystemExit(backend.cuda_trouble() or (0 if torch.cuda.is_available() else 'torch sees no CUDA device'))

test-gpu: setup
	$(BIN)/python -c "$(DEVICE_CHECK)"
	$(BIN)/python -m pytest -m gpu -rs

# The tools see wrong addresses and memory never written; races in shared memory; barriers not all threads reach.
sanitize: setup
	$(BIN)/python -c "$(DEVICE_CHECK)"
	for tool in memcheck initcheck racecheck synccheck; do \
	  PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $$tool --error-exitcode 1 --target-processes all \
	    $(BIN)/python -m pytest -m gpu tests/ops/test_on_device.py -k "reference or copy" || exit 1; \
	done

bench: setup
	$(BIN)/rotomem bench $(BENCH)

lint: setup
	$(BIN)/ruff check python kernels tests host_integrations
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist rotomem_demo
