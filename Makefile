PYTHON ?= python3
BIN = .venv/bin

run: .venv/installed
	@exec $(BIN)/python app.py

test: .venv/installed
	$(BIN)/python -m pytest

psql: .venv/installed
	@$(BIN)/python -m db psql

stress: .venv/installed
	$(BIN)/python -m tests.stress

# QUICK=1: the main figures, in under three minutes.
bench: .venv/installed tests/bench/.venv/installed
	$(BIN)/python -m tests.bench $(if $(QUICK),--quick,--json --svg)

# FUZZ_SECONDS, 35 if unset: how long each of the two rounds takes.
fuzz: .venv/installed tests/fuzz/.venv/installed
	$(BIN)/python -m tests.fuzz

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

# The peers of the benchmark, apart: the service needs none of what they bring.
tests/bench/.venv/installed: tests/bench/requirements.txt
	$(PYTHON) -m venv tests/bench/.venv
	tests/bench/.venv/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# What holds /openapi.json against the service, apart for the same reason.
tests/fuzz/.venv/installed: tests/fuzz/requirements.txt
	$(PYTHON) -m venv tests/fuzz/.venv
	tests/fuzz/.venv/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.PHONY: run test psql stress bench fuzz lint
