# Two commands for a newcomer: `make demo` and `make test`. Each builds .venv by itself.
PYTHON ?= python3
TORCH_VERSION ?= 2.13.0
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SLICER_READY := $(VENV)/.bench

.PHONY: demo test check check-style format bench screenshots clean

demo: $(READY)
	$(BIN)/nnsegment demo $(DEMO)

test: $(SLICER_READY)
	$(BIN)/python -m pytest Testing $(TEST)

check-style: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check: check-style $(SLICER_READY)
	$(BIN)/python -m pytest Testing -m "not slow" $(TEST)

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# time and memory of every stage, beside nnU-Net where NNUNET_PYTHON has it; BENCH="--quick" or stages: BENCH="export window"
bench: $(SLICER_READY)
	PYTHONPATH=Testing $(BIN)/python -m benchmarks.run $(BENCH)

# the pictures of README and tutorial, taken of the panel on the bench; a quarter of an hour
screenshots: $(SLICER_READY)
	$(BIN)/python Testing/bench/screenshots.py Resources/Screenshots $(SCREENSHOTS)

$(READY): pyproject.toml Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "NNSegment needs Python 3.11 or newer; name one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==$(TORCH_VERSION)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train,test]'
	touch $(READY)

# Slicer's scene and Qt; where they have no wheels the tests of the panel skip and say so
$(SLICER_READY): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]' || echo "The panel's tests will be skipped here."
	touch $(SLICER_READY)

clean:
	rm -rf $(VENV) build *.egg-info NNSegment-demo
