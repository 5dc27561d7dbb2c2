# Two commands for a newcomer: `make demo` and `make test`. Each builds .venv by itself.
PYTHON ?= python3
TORCH_VERSION ?= 2.13.0
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH := $(VENV)/.bench

.PHONY: demo test check check-style format screenshots clean

demo: $(READY)
	$(BIN)/nnsegment demo $(DEMO)

test: $(BENCH)
	$(BIN)/python -m pytest Testing $(TEST)

check-style: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check: check-style $(BENCH)
	$(BIN)/python -m pytest Testing -m "not slow" $(TEST)

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# the pictures of README and tutorial, taken of the panel on the bench; a quarter of an hour
screenshots: $(BENCH)
	$(BIN)/python Testing/bench/screenshots.py Resources/Screenshots $(SCREENSHOTS)

$(READY): pyproject.toml Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "NNSegment needs Python 3.11 or newer; name one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==$(TORCH_VERSION)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train,test]'
	touch $(READY)

# Slicer's scene and Qt; where they have no wheels the tests of the panel skip and say so
$(BENCH): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]' || echo "The panel's tests will be skipped here."
	touch $(BENCH)

clean:
	rm -rf $(VENV) build *.egg-info NNSegment-demo
