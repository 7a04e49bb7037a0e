# Everything a newcomer needs: `make demo`, then `make test`. `make help` lists the rest.
# Fresh Debian with Python 3.11 and make is enough; root or not.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SEED ?= $(shell date +%s)
DEMO_FLAGS ?=
# So many test processes: most of what they do is wait, so two cores keep three busy. JOBS=0 runs all in this one.
JOBS ?= 3
HOURS ?= 1
MINUTES ?= 20
COUNT ?= 1000000
SETTLED ?= 1000000
WAITING ?= 100000
TEST_FLAGS ?=

.DEFAULT_GOAL := help

demo: $(READY) ## watch 200 charges happen exactly once while processes are killed (under a minute)
	@$(BIN)/counterfoil demo $(DEMO_FLAGS)

test: $(READY) ## every test that fits into about ten minutes, with branch coverage of core, store and engine
	@rm -f .coverage .coverage.*
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -p tests.order --cov --cov-report=term:skip-covered $(TEST_FLAGS)

check: $(READY) ## format, lint, types, imports, migrations
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m alembic upgrade head --sql 2>/dev/null | $(BIN)/squawk --stdin-filepath migrations.sql

chaos: $(READY) ## the whole chaos suite (about an hour); repeat one with `make chaos SEED=…`
	$(BIN)/counterfoil chaos run --seed $(SEED) --jobs $(JOBS) $(TEST_FLAGS)

slow: $(READY) ## what else is too long for `make test`: larger models, a fuzzed API, every tenant by every route
	$(BIN)/python -m pytest -n $(JOBS) --dist load -m slow --timeout 1200 \
		--ignore tests/chaos --ignore tests/simulation --ignore tests/guards/test_processes_without_their_guard.py \
		--ignore tests/flow/test_pools.py --ignore tests/flow/test_refunds.py --ignore tests/store/test_operations_machine.py $(TEST_FLAGS)

soak: $(READY) ## everything at once, at random, for HOURS (1); repeat one with `make soak SEED=…`
	$(BIN)/python -m tests.chaos.soak --hours $(HOURS) --seed $(SEED)

peers: $(READY) ## the crash after the effect, played with each peer on one provider (builds an environment for them)
	$(BIN)/python -m benchmarks.peers --trials 3 --write

mutants: $(READY) ## change core and engine a line at a time, for MINUTES (20), and count who notices
	$(BIN)/python -m tests.guards.mutation --minutes $(MINUTES) --seed $(SEED)

bad-input: $(READY) ## COUNT (a million) bad inputs through HTTP, Python, the command and the broker
	$(BIN)/python -m tests.badinput --count $(COUNT) --seed $(SEED)

size: $(READY) ## accept, take, claim and list on a large ledger beside an empty one (SETTLED=1000000 WAITING=100000)
	$(BIN)/python -m benchmarks.size --settled $(SETTLED) --waiting $(WAITING) --json benchmarks/results/size.json

bench: $(READY) ## throughput, latency, CPU, commits and WAL beside a bare Celery task, as ratios of one run
	$(BIN)/python -m benchmarks.end_to_end

up: $(READY) ## run everything in this terminal (embedded servers, fake providers unless configured)
	@$(BIN)/counterfoil up

setup: $(READY) ## only build the environment

lock: $(READY) ## write requirements/*.txt anew from pyproject.toml (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
		--no-annotate pyproject.toml -o requirements/base.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
		--no-annotate pyproject.toml --group dev requirements/build.in -o requirements/dev.txt

clean: ## forget the environment and the embedded servers' data
	rm -rf $(VENV) .counterfoil .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The stamp is written last: an interrupted install is simply done again.
$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	@# Debian keeps ensurepip in a package of its own; root can have it at once, others are told.
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
		|| { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null; } \
		|| { echo "Python's venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "setting up $(VENV) (once, a minute or so)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

.PHONY: demo test check chaos slow soak peers mutants bad-input size bench up setup lock clean help
