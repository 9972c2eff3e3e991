# `make` alone lists what there is. ARGS is passed on: make demo ARGS="--exit"
.DEFAULT_GOAL := help
.PHONY: help install demo test test-real test-compose test-k8s test-ollama chaos lint format contracts lock bench clean
BIN := .venv/bin
# A file's tests stay together. Without the second, files of few tests come last, and those take longest.
LONGEST_FIRST := --dist loadfile --no-loadscope-reorder
ARGS ?=
# With it every start of a service would compile all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

install: ## make .venv from requirements.lock, when it is missing or the lock changed
	@scripts/install

demo: install ## the whole system and a simulated outside world, for one night; ARGS="--exit" ends by itself
	@$(BIN)/nightshift demo $(ARGS)

test: install ## every test that needs no container engine, on up to four processes
	@$(BIN)/python -m pytest -q -n auto --maxprocesses 4 $(LONGEST_FIRST) $(ARGS)

test-real: install ## the same integration and e2e tests on Apache Kafka and Postgres 17; skipped where no container engine answers
	@$(BIN)/python -m pytest -q -n 2 $(LONGEST_FIRST) --stack=real tests/e2e tests/integration $(ARGS)

test-compose: install ## docker-compose.yml on a container engine: a night, every query of the dashboards, down and up again
	@$(BIN)/python -m pytest -s -q tests/real/test_compose.py $(ARGS)

test-k8s: install ## deploy/k8s built by kubectl, and applied to the cluster of NIGHTSHIFT_TEST_KUBECONFIG, which may be thrown away
	@$(BIN)/python -m pytest -q tests/real/test_kubernetes.py $(ARGS)

test-ollama: install ## the promises of every model, kept by the Ollama of NIGHTSHIFT_TEST_OLLAMA_URL with NIGHTSHIFT_TEST_OLLAMA_MODEL
	@$(BIN)/python -m pytest -q tests/real/test_ollama.py $(ARGS)

chaos: install ## services killed, rolled and paused, broker and Postgres broken, under load; ARGS="--short --figures FILE"
	@$(BIN)/python -m pytest -q tests/chaos $(ARGS)

lint: install ## ruff, mypy, import-linter
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: install ## let ruff mend what it can
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

contracts: install ## write the JSON Schemas and the AsyncAPI document anew
	@$(BIN)/python -m contracts.generate

lock: install ## write requirements.lock anew; ARGS="--upgrade" for the newest versions
	@scripts/lock $(ARGS)

bench: install ## intake and the whole pipeline, beside pgbench in the same run
	@$(BIN)/python -m benchmarks.pipeline
	@$(BIN)/python -m benchmarks.intake

clean: ## remove .venv and caches; the state folder stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
