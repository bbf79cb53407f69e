# Two commands do all: `make run` and `make test`. Both set up .venv by themselves; pip is all they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Flags for the processor: make run ARGS="--upstream-endpoint collector:4317"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test browser-test browser-lint node-example page-example lint bench bench-collector spreading-collector bench-shim bench-store scale conformance interop-clickhouse torture interop demo screenshots check wheel-check clean

help:  ## Say what the commands are
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Two terminals may set up .venv at the same time (make run, make demo); the second one waits. The lock is on this file,
# and the kernel gives it back however the holder ends.
LOCKED = $(PYTHON) -c 'import fcntl, os, sys; lock = os.open("Makefile", os.O_RDONLY); fcntl.flock(lock, fcntl.LOCK_EX); \
	os.set_inheritable(lock, True); os.execvp("sh", ["sh", "-ec", sys.argv[1]])'

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed; say which with PYTHON=python3.12" if sys.version_info < (3, 10) else 0)'
	@echo "Setting up $(VENV); the first time this takes about a minute."
	@# --group needs pip 25.1; the pip that comes with Python may be older.
	@$(LOCKED) 'test -e $@ || { $(PYTHON) -m venv $(VENV); $(BIN)/python -m pip install --quiet --upgrade pip; touch $@; }'

$(VENV)/.run: $(VENV)/.python pyproject.toml
	@$(LOCKED) '$(BIN)/python -m pip install --quiet --editable ".[processor]"; touch $@'

$(VENV)/.dev: $(VENV)/.python pyproject.toml
	@$(LOCKED) '$(BIN)/python -m pip install --quiet --editable ".[processor]" --group dev; touch $@ $(VENV)/.run'

# The page of the examples may send, unless ARGS (the last flag wins), a file or the environment say who may, or none can.
SAYS_ORIGINS = $(filter --config%,$(ARGS))$(findstring http-listen none,$(ARGS))$(NEATLOGS_PROCESSOR_CONFIG)$(NEATLOGS_PROCESSOR_CORS_ORIGINS)
PAGE_ORIGIN = $(if $(SAYS_ORIGINS),,--cors-origins http://localhost:5173)

run: $(VENV)/.run  ## Start the processor (ARGS="..." passes flags)
	@exec $(BIN)/neatlogs-processor --console $(PAGE_ORIGIN) $(ARGS)

# The TypeScript package is tested where Node is. Where nothing may be skipped, its absence is a failure.
NPM := $(shell command -v npm 2>/dev/null)
WITHOUT_NODE = @echo "Skipped: the TypeScript package in browser/, because Node is not installed (apt-get install nodejs npm)." \
	&& test -z "$$NEATLOGS_TESTS_NO_SKIP"

browser/node_modules/.package-lock.json: browser/package-lock.json
	@# Packages run no scripts of their own at installation: none of these needs one.
	@cd browser && npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@

# What the examples run on. The tests build it by themselves: they want to see what a build says.
browser/dist/.built: browser/node_modules/.package-lock.json $(shell find browser/src browser/scripts -type f)
	@cd browser && npm run --silent build
	@touch $@

ifeq ($(NPM),)
browser-test browser-lint node-example page-example:
	$(WITHOUT_NODE)
else
browser-test: browser/node_modules/.package-lock.json  ## Build and test the TypeScript package
	@cd browser && npm run --silent build && npm run --silent test

browser-lint: browser/node_modules/.package-lock.json  ## Style and types of the TypeScript package
	@cd browser && npm run --silent lint

node-example: browser/dist/.built  ## A Node program against a running processor
	@cd browser && node examples/support_bot.mjs

page-example: browser/dist/.built  ## A web page and its server (ARGS="--visit" plays a visit)
	@cd browser && node examples/page.mjs $(ARGS)
endif

test: $(VENV)/.dev browser-test  ## Run every test
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --cov --cov-report=
	@# The core is the rule: every line and branch of it is covered.
	$(BIN)/coverage report --include='*/neatlogs_processor/core/*' --fail-under=100
	@$(BIN)/coverage report --format=total | sed 's/^/Coverage of both packages, in percent: /'

lint: $(VENV)/.dev browser-lint  ## Style, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test wheel-check  ## Everything that CI runs

wheel-check: $(VENV)/.dev  ## Build the wheel, install it where the sources are absent, try it
	tests/wheel/check.sh $(BIN)/python

bench: $(VENV)/.dev  ## Measure: ratios within one run (ARGS="--tables", "--full", "--only core")
	$(BIN)/python -m tests.bench $(ARGS)

bench-collector:  ## Build the Collector that the benchmark compares with (needs Go)
	tests/bench/collector/build.sh

spreading-collector:  ## Build the Collector that spreads traces over processors with --inherit (needs Go)
	tests/bench/collector/build.sh spreading.yaml spreading-collector

bench-shim: $(VENV)/.dev  ## Measure the shim: its span processor beside one that does nothing
	$(BIN)/python -m tests.bench.shim

# sqlite or clickhouse
ENGINE ?= sqlite
bench-store: $(VENV)/.dev  ## Measure the store: writing, room on disk, questions (ARGS="--spans 5000000", ENGINE=clickhouse)
	$(BIN)/python -m tests.bench.store --engine $(ENGINE) $(ARGS)

conformance: $(VENV)/.dev  ## The long form of the comparison of both engines, and the tests of the page over ClickHouse
	CONFORMANCE_EXAMPLES=$(or $(EXAMPLES),100) $(BIN)/python -m pytest tests/processor/store/conformance -o timeout=3600
	PAGE_ENGINE=clickhouse $(BIN)/python -m pytest tests/processor/page

interop-clickhouse: $(VENV)/.dev  ## The tests of the store on ClickHouse against a real server (CLICKHOUSE=http://user:password@host:8123)
	@test -n "$(CLICKHOUSE)" || { echo "Name a server: make interop-clickhouse CLICKHOUSE=http://user:password@host:8123"; exit 1; }
	CLICKHOUSE=$(CLICKHOUSE) $(BIN)/python -m pytest tests/processor/store/clickhouse tests/processor/store/conformance

scale: $(VENV)/.dev  ## The plan for 10^4 to 10^8 spans a second, from its inputs (ARGS=--write: into docs/scale.md)
	$(BIN)/python -m tests.bench.scale $(ARGS)

torture: $(VENV)/.dev  ## The long forms of the tests: kill -9, outages, damaged files, full disk, hostile input, fuzzing, an hour of load
	$(BIN)/python tests/torture/kill9.py --mode queue --kills 100
	$(BIN)/python tests/torture/kill9.py --mode inherit --kills 100
	$(BIN)/python tests/torture/kill9.py --mode sync --kills 100
	$(BIN)/python tests/torture/kill9.py --mode store --kills 100
	$(BIN)/python tests/torture/outage.py --mode queue
	$(BIN)/python tests/torture/outage.py --mode sync
	$(BIN)/python tests/torture/queue_damage.py
	$(BIN)/python tests/torture/full_disk.py
	$(BIN)/python tests/torture/full_disk.py --of store --size 60
	$(BIN)/python tests/torture/full_disk.py --of held --size 150
	$(BIN)/python tests/torture/hostile.py
	$(BIN)/python tests/torture/rolling_restart.py --proxy nginx
	$(BIN)/python tests/torture/rolling_restart.py --proxy haproxy --drain-delay 1500ms
	$(BIN)/python tests/torture/fuzz_core.py --random --executions 10000000 --findings .cache/fuzz
	$(BIN)/python tests/torture/fuzz_json.py --random --executions 2000000 --findings .cache/fuzz
	$(BIN)/python tests/torture/fuzz_core.py --executions 1000000 --findings .cache/fuzz
	$(BIN)/python tests/torture/fuzz_json.py --executions 1000000 --findings .cache/fuzz
	$(BIN)/python tests/torture/steady.py

interop: $(VENV)/.dev  ## Real clients through the processor to real backends (Phoenix, MLflow), which are installed under .peers
	$(BIN)/python tests/interop/run.py
	$(BIN)/python tests/interop/recipes.py

demo: $(VENV)/.dev  ## A lively mix of the examples against a running processor
	$(BIN)/python examples/demo.py
	@$(MAKE) --no-print-directory node-example
	@$(MAKE) --no-print-directory page-example ARGS=--visit

screenshots: $(VENV)/.dev  ## Take the README's pictures of the traces page again
	@cd tests && ../$(BIN)/python -m support.screenshots

clean:  ## Remove what the commands above made
	rm -rf $(VENV) browser/node_modules browser/dist .peers .cache .hypothesis .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage build dist
