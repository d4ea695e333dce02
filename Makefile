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

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.PHONY: run test psql stress lint
