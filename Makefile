# Everything needs the environment; `make .venv` makes it with nothing but python3 and pip, from the lock file.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Tests run on all cores but never on more than 4: each worker has databases of its own.
TEST_WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); if [ $$n -gt 4 ]; then echo 4; else echo $$n; fi)
# Each test has a database of its own. In memory its copy takes a tenth of a second less; it needs less than 8 GB there.
IN_MEMORY := $(shell test "$$(df --output=avail /dev/shm 2>/dev/null | tail -n 1)" -gt 8000000 2>/dev/null && echo PYTEST_DEBUG_TEMPROOT=/dev/shm)

# Python keeps what it has compiled, whatever the shell says: else each process that is started here takes a second longer.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo up test test-long docs-check monitoring-check check format bench clean .venv

help: ## show this list
	@grep -E '^[a-z.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z.-]+):.*## /\1\t/' | expand -t 18

# The stamp makes it cheap when nothing changed; uv itself comes from pip, in its own folder so that it survives syncs.
.venv: $(STAMP) ## make the environment (only when the lock file changed)

$(STAMP): pyproject.toml uv.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(VENV)/uv/bin/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(VENV)/uv "uv>=0.9,<1"
	@VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(VENV)/uv/bin/uv sync --frozen --active --quiet
	@touch $(STAMP)

demo: $(STAMP) ## make a shop with 100,000 orders and award them, then stop
	@$(BIN)/loyalty demo

up: $(STAMP) ## open Dagster's web UI on the same data; Ctrl-C ends it
	@$(BIN)/loyalty up

test: $(STAMP) ## all tests
	@$(IN_MEMORY) $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadgroup

test-long: $(STAMP) ## the random tests with many more examples
	@LOYALTY_HYPOTHESIS_EXAMPLES=2000 $(IN_MEMORY) $(BIN)/python -m pytest -n $(TEST_WORKERS) tests/integration/test_awards_model.py

docs-check: $(STAMP) ## the documentation's example for Node (needs the npm registry)
	@$(BIN)/python -m pytest tests/acceptance/node_example.py

monitoring-check: $(STAMP) ## metrics, alert rules and dashboard, by promtool (from the PATH, else from apt)
	@$(BIN)/python -m pytest tests/acceptance/promtool.py

check: $(STAMP) ## style, types, layers, SQL
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports
	@$(BIN)/sqlfluff lint --disable-progress-bar loyalty_pipelines

format: $(STAMP) ## rewrite the code in the project's style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(STAMP) ## measure the promised figures (about 70 minutes); results in build/benchmarks
	@$(BIN)/python -m benchmarks.imports
	@$(BIN)/python -m benchmarks.latency
	@$(BIN)/python -m benchmarks.awards
	@$(BIN)/python -m benchmarks.redeem
	@$(BIN)/python -m benchmarks.reconciliation_queue
	@$(BIN)/python -m benchmarks.expiry
	@$(BIN)/python -m benchmarks.integrity
	@$(BIN)/python -m benchmarks.mails
	@$(BIN)/python -m benchmarks.reports
	@$(BIN)/python -m benchmarks.subscriptions
	@$(BIN)/python -m benchmarks.contracts
	@$(BIN)/python -m benchmarks.metrics

clean: ## remove the environment, the demo's data and caches
	@rm -rf $(VENV) .loyalty build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
