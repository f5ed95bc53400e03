# `make demo` and `make test` need python3 (3.11 or newer), make and git; the rest is installed into .venv on first use.
VENV := .venv
BIN := $(abspath $(VENV))/bin
# Tests mostly wait for processes, so more of them than there are cores go side by side.
JOBS ?= 4
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check --no-input
READY := $(VENV)/.ready-to-run
READY_DEV := $(VENV)/.ready-to-develop
READY_FUZZ := $(VENV)/.ready-to-fuzz

# As in an activated virtual environment: `python` is this one.
export VIRTUAL_ENV := $(abspath $(VENV))
export PATH := $(BIN):$(PATH)
unexport PYTHONPATH PYTHONHOME

.PHONY: help demo test test-services chaos soak soak-restarts soak-health fuzz bench bench-full bench-setup bench-publish quick lint format docs man schema tour lock dev clean

help:
	@echo "make demo    run the example colony until CTRL-C (DEMO_SECONDS=10 make demo ends by itself)"
	@echo "make test    all tests (PYTEST='-k name' chooses; JOBS=1 for one at a time)"
	@echo "make test-services  the tests with PostgreSQL, Redis, nginx and others; root gets what is missing by apt-get"
	@echo "make chaos   kill supervisor and keeper at random for SECONDS=60 and count what came of it (SEED=N repeats)"
	@echo "make soak    1,000 processes that come, go, crash and print for SECONDS=600: does anything grow? (SEED=N repeats)"
	@echo "make soak-restarts  COUNT=100000 restarts: do supervisor, keeper or their files grow?"
	@echo "make soak-health  make 500 processes with checks and 100 jobs ill for SECONDS=60, and judge what is done about it"
	@echo "make fuzz    feed every parser with what it was not made for, FUZZ_SECONDS=60 each (TARGET=name for one)"
	@echo "make bench   measure this checkout beside other supervisors, in 15 minutes, and print tables; their installation is part of it"
	@echo "make bench-full  the same thoroughly, in 90 minutes; make bench-setup only installs, and python -m bench measures one thing"
	@echo "make bench-publish  tables and plot of the newest measurement, or of FILE=bench/results/…, into docs/benchmarks"
	@echo "make quick   the rules' unit tests and the linter, in seconds"
	@echo "make lint    formatting, linter, types"
	@echo "make format  put the formatting right"
	@echo "make docs    the documentation, into docs/_build/html"
	@echo "make man     the manual pages, into docs/_build/man"
	@echo "make schema  write src/ncolony/schema/*.json anew, after a change of the model or of docs/configuration.md"
	@echo "make tour    type the tour of the documentation into a terminal again, and write down what it shows"
	@echo "make lock    write requirements/*.txt anew (UPGRADE=1: with the newest versions)"
	@echo "make clean   remove everything that make made"

$(READY): requirements/run.txt pyproject.toml tools/venv.sh
	@sh tools/venv.sh $(VENV)
	@$(PIP) --require-hashes -r requirements/run.txt
	@$(PIP) --no-build-isolation --no-deps -e .
	@touch $@

$(READY_DEV): requirements/dev.txt $(READY)
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

# For some versions of Python there is no atheris; inputs are made by chance then.
$(READY_FUZZ): requirements/fuzz.txt $(READY_DEV)
	@$(PIP) --require-hashes -r requirements/fuzz.txt || echo "atheris cannot be installed"
	@touch $@

dev: $(READY_DEV)

demo: $(READY)
	@$(BIN)/python tools/demo.py

test: $(READY_DEV)
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(PYTEST)

test-services: $(READY_DEV)
	@sh tools/services.sh
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal tests/services $(PYTEST)

SECONDS ?= 60

chaos: $(READY_DEV)
	@$(BIN)/python tests/chaos/storm.py $(SECONDS)

# Ten minutes, unless somebody says otherwise.
soak: $(READY_DEV)
	@$(BIN)/python tests/soak/churn.py $(if $(filter file,$(origin SECONDS)),600,$(SECONDS))

COUNT ?= 100000

soak-restarts: $(READY_DEV)
	@$(BIN)/python tests/soak/restarts.py $(COUNT)

soak-health: $(READY_DEV)
	@$(BIN)/python tests/soak/health.py $(SECONDS)

FUZZ_SECONDS ?= 60

fuzz: $(READY_FUZZ)
	@$(BIN)/python tests/fuzz/run.py "$(TARGET)" $(FUZZ_SECONDS)

bench-setup: $(READY)
	@sh bench/setup.sh

bench: bench-setup
	@$(BIN)/python -m bench series short

bench-full: bench-setup
	@$(BIN)/python -m bench series full

bench-publish: $(READY)
	@$(BIN)/python -m bench publish $(FILE)

quick: $(READY_DEV)
	@$(BIN)/ruff check -q
	@$(BIN)/ruff format -q --check
	@$(BIN)/python -m pytest -q -n 2 $(wildcard tests/model) tests/decide tests/test_house.py

lint: $(READY_DEV)
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@# The keeper runs as `python -I -S src/ncolony/keeper`: its modules are top-level names to each other.
	@cd src/ncolony/keeper && MYPYPATH=. $(BIN)/mypy --explicit-package-bases --config-file ../../../pyproject.toml --cache-dir ../../../.mypy_cache/keeper *.py

format: $(READY_DEV)
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

docs: $(READY_DEV)
	@$(BIN)/sphinx-build -q -E -W --keep-going -n -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

man: $(READY_DEV)
	@$(BIN)/sphinx-build -q -E -W --keep-going -b man docs docs/_build/man
	@ls docs/_build/man/*.[1-9]

schema: $(READY)
	@$(BIN)/python tools/schema.py

tour: $(READY)
	@$(BIN)/python tools/tour.py

lock:
	@sh tools/venv.sh $(VENV)
	@UPGRADE=$(UPGRADE) sh tools/lock.sh $(BIN)/python

clean:
	rm -rf $(VENV) build dist docs/_build .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests tools docs bench -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f src/twisted/plugins/dropin.cache
