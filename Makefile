# make demo    see a notebook survive its kernel
# make test    lint, types, and the tests that a change should pass before it is committed
# Both make a virtual environment first; PYTHON names the Python that it is made from.

PYTHON ?= python3
VENV ?= .venv
# One more than a small machine has cores: half of the tests' time they wait, for processes, kernels and delays.
WORKERS ?= 3

REENTERED = $(addprefix tests/behaviour/test_,workflow.py policies.py ancestor.py threads.py joining.py bad_input.py) \
	tests/stores/test_adapter.py

# The last 6 of ipykernel, which talks with front ends otherwise than 7 does, and the first pydantic-ai that is taken.
OLDER = .venv-older
OLDER_VERSIONS = 'ipykernel==6.31.*' 'pydantic-ai-slim==2.61.*'
OLDER_TESTS = tests/browser tests/kernels/test_page.py tests/kernels/test_agents.py tests/agents

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
PACKAGE = $(VENV)/.package-installed
TOOLS = $(VENV)/.tools-installed
# The tests start a thousand interpreters: each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
# A worker takes one file after the other, in the order of the folders: what takes long is not left for the end.
PYTEST = $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help venv system demo lint types tests slow reentered core older long notebooks rest test test-all campaign \
	bench clean

help:
	@echo "make demo       run a notebook, kill its kernel, run it again; takes 15 s"
	@echo "make test       lint, types, and the tests to pass before a commit; takes 15 minutes on two cores"
	@echo "make test-all   the same, and everything else; takes 45 minutes"
	@echo "make lint | types | tests                    the parts of make test"
	@echo "make slow | reentered | notebooks | long     what make test-all adds"
	@echo "make core | older                            what .ci/run adds, on other versions"
	@echo "make campaign   500 torn databases, each resumed, and 500 random programs, each killed; takes half an hour"
	@echo "make bench      what it costs, beside the bars that it is held to"
	@echo "make venv       the virtual environment alone, in $(VENV)"
	@echo "make clean      remove what was made"
	@echo "Another Python: make test PYTHON=python3.12 VENV=.venv-3.12"

venv: $(TOOLS)

$(PACKAGE): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	{ echo "$(PYTHON) is not Python 3.11 or newer. Name one: make PYTHON=python3.12" >&2; exit 1; }
	@echo "== installing the package into $(VENV), once"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --editable .
	@touch $(PACKAGE)

$(TOOLS): $(PACKAGE)
	@echo "== installing what the tests need into $(VENV), once"
	@$(PIP) --editable '.[all,dev]'
	@touch $(TOOLS)

# Chromium and a Redis server, where they may be installed.
system:
	@.ci/system

demo: $(PACKAGE)
	@$(BIN)/durable-nb demo

lint: $(TOOLS)
	@echo "== lint"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "not formatted: $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/codespell || { echo "misspelled: $(BIN)/codespell --write-changes" >&2; exit 1; }

types: $(TOOLS)
	@echo "== types"
	@$(BIN)/mypy

tests: $(TOOLS) system
	@echo "== tests"
	@$(PYTEST) -m "not slow and not long"

# A browser and its server take a core: two of them at most at a time.
slow older: WORKERS = 2
slow: $(TOOLS) system
	@echo "== slow tests: browsers, whole notebooks, the demo, chains of kills"
	@$(PYTEST) -m "slow and not long"

reentered: $(TOOLS) system
	@echo "== the workflows of the tests, entered anew after every step"
	@$(PYTEST) -m "not slow and not long" --force-replay $(REENTERED)

core: $(TOOLS) system
	@echo "== the core of the tests, without a browser"
	@$(PYTEST) -m "not long" --ignore=tests/browser

older $(OLDER)/.installed: BIN = $(OLDER)/bin
older: $(OLDER)/.installed system
	@echo "== prompts and agents on older versions: $(OLDER_VERSIONS)"
	@$(PYTEST) -m "not long" $(OLDER_TESTS)

$(OLDER)/.installed: pyproject.toml
	@echo "== installing older versions into $(OLDER), once"
	@$(PYTHON) -m venv $(OLDER)
	@$(PIP) --editable '.[all,dev]' $(OLDER_VERSIONS)
	@touch $@

# pytest says 5 where no test is marked long.
long: $(TOOLS) system
	@echo "== long tests"
	@$(PYTEST) -x -m long || [ $$? -eq 5 ]

# On a copy, so that no database is left beside the notebooks; twice, since a replay must show the same.
notebooks: $(TOOLS)
	@echo "== notebooks, executed and replayed"
	@rm -rf build/notebooks && mkdir -p build && cp -R notebooks build/
	@for time in first second; do \
	  DURABLE_NB_BADGE=plain $(BIN)/python -m pytest -q --nbval --nbval-current-env build/notebooks || exit 1; \
	done

test: lint types tests

rest: slow reentered notebooks

test-all: test rest long

# Another seed: make campaign SEED=2 TRIALS=1000
SEED ?= 1
TRIALS ?= 500
campaign: $(TOOLS)
	@echo "== databases whose files are damaged, or copied while in use, and resumed"
	@PYTHONPATH=tests $(BIN)/python -m helpers.torn $(SEED) $(TRIALS)
	@echo "== random programs, killed and resumed"
	@PYTHONPATH=tests $(BIN)/python -m helpers.oracle $(SEED) $(TRIALS)

# Beside each measure the bar that it is held to; what is over its bar is said, and is no failure of make.
bench: $(TOOLS)
	@for each in benchmarks/*.py; do echo "== $$each"; $(BIN)/python $$each || true; done

clean:
	@rm -rf .venv .venv-* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
