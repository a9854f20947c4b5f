# Tidemark. `make help` prints the targets from the comments behind them.

PYTHON ?= python3
BOARD ?= VIRTUAL
TARGET ?= virtual
TEST ?= tests/system
VENV := .venv
RUN := $(VENV)/bin
# The environment is made anew when its pins or the interpreter change, whatever the time stamps say.
KEY := $(shell { cat pyproject.toml requirements.lock; $(PYTHON) -VV; pwd; } | sha256sum | cut -c1-16)
STAMP := $(VENV)/.stamp-$(KEY)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo setup test quick lint format firmware hil reproducible bench powercut soak fuzz model doctor lock clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## the main job, end to end, on a virtual board; exit 0 only if every step holds
	$(RUN)/tidemark demo

setup: $(STAMP) ## fetch and verify the Python environment and the toolchain
	@$(RUN)/python -m tidemark_host.toolchain setup

test: setup lint ## lint, then all bounded tests that need no hardware
	$(RUN)/pytest -n 2

quick: $(STAMP) ## the tests of the firmware's cores on CPython only
	TIDEMARK_INTERPRETERS=cpython $(RUN)/pytest -q tests/vm tests/unit

lint: $(STAMP) ## ruff, codespell, pyright
	$(RUN)/ruff check
	$(RUN)/ruff format --check
	$(RUN)/codespell
	$(RUN)/pyright

format: $(STAMP) ## put host code and tests into ruff's format
	$(RUN)/ruff check --fix
	$(RUN)/ruff format

# Handed on only when named: the program has its own default.
RUNTIME = $(if $(RUNTIME_INDEX),--runtime-index '$(RUNTIME_INDEX)')

firmware: setup ## images of BOARD=<name> in build/<name>/, sizes; RELEASE=<repository>, RUNTIME_INDEX=<n>
	@$(RUN)/tidemark firmware $(BOARD) $(RUNTIME) $(if $(RELEASE),--release "$(RELEASE)")

reproducible: setup ## build the firmware of BOARD=<name> twice from nothing and compare the bytes, with firmware.uf2 too
	@$(RUN)/tidemark firmware $(BOARD) --twice $(RUNTIME)

# A BOARD that nobody named is the default of `firmware`, not a choice.
HIL_BOARD = $(if $(filter file undefined,$(origin BOARD)),,--board-name '$(BOARD)')
HIL = build/hil/$(TARGET)
HIL_BENCH = $(if $(BENCH),--bench '$(BENCH)')
# An emulated board sleeps as much as a real one does: two cores carry four.
HIL_WORKERS = $(if $(filter emulated,$(TARGET)),4,2)

hil: setup ## the system suite on TARGET=virtual|emulated|serial [BOARD=<name>] [TEST=<id>] [MARK=smoke] [BENCH=<file>]
	@mkdir -p $(HIL)
	$(RUN)/pytest -n $(HIL_WORKERS) '$(TEST)' --board $(TARGET) $(HIL_BOARD) $(HIL_BENCH) $(if $(MARK),-m '$(MARK)') \
		--junit-xml=$(HIL)/junit.xml --html=$(HIL)/report.html --self-contained-html

bench: setup ## all benchmarks, with their peers in the same run; build/bench.json and a table
	@$(RUN)/tidemark bench

# Handed on only when named: the program has its own defaults.
POWERCUT = $(if $(JSON),--json) $(if $(REPLAY),--replay '$(REPLAY)') $(if $(SEED),--seed '$(SEED)') $(SCENARIO)
POWERCUTS = tests.powercut$(if $(filter emulated,$(TARGET)),.pico_cuts)

powercut: setup ## cut the power at every flash operation [SCENARIO=<name>] [SEED=<n>] [REPLAY=<path>] [TARGET=emulated]
	@$(RUN)/python -m $(POWERCUTS) $(POWERCUT)

model: $(STAMP) ## check the models of specs/ exhaustively, and refute their broken twins
	@$(RUN)/python -m tidemark_host.modelcheck

MESSAGES ?= 70000
PROFILE ?= mild
soak: setup ## [MESSAGES=70000] readings of one boot through a faulty network [SEED=1] [PROFILE=mild]
	@$(RUN)/python -m tidemark_host.faults.soak --messages $(MESSAGES) --seed $(or $(SEED),1) \
		--profile '$(PROFILE)' $(if $(JSON),--json)

fuzz: setup ## search parsers with atheris: [TARGET_NAME=<name>] [SECONDS=<each>] [REPLAY=<target>:<hex>]
	@$(RUN)/python -c 'import atheris' 2>/dev/null || $(RUN)/pip install -qq --constraint requirements.lock --editable '.[fuzz]'
	@$(RUN)/python -m tests.fuzz $(TARGET_NAME) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(REPLAY),--replay '$(REPLAY)') $(if $(JSON),--json)

doctor: $(STAMP) ## say which tools are here and work
	@$(RUN)/python -m tidemark_host.toolchain doctor

lock: ## write requirements.lock from the pins in pyproject.toml
	$(RUN)/pip freeze --exclude-editable > requirements.lock

clean: ## remove what was built here; the toolchain's cache stays
	rm -rf build $(VENV) .pytest_cache .ruff_cache .hypothesis

$(STAMP): pyproject.toml requirements.lock
	@bash host_tools/make_venv.sh $(PYTHON) $(VENV)
	@touch $@
